// From generated service descriptors to grpc-js: the only place where the two meet. Must not live here: what the
// services do.
import { create, fromBinary, toBinary, type DescMethod, type DescService } from '@bufbuild/protobuf'
import {
  logVerbosity,
  setLogVerbosity,
  status,
  type MethodDefinition,
  type ServiceDefinition,
  type ServiceError,
} from '@grpc/grpc-js'
import { AmbitError } from '../base/errors.ts'

// Its own lines on stderr say nothing that our errors do not, and break JSON logs.
setLogVerbosity(logVerbosity.NONE)

/** A definition whose messages are protobuf-es messages. Buffers given to serialize are taken as encoded already. */
export function serviceDefinition(service: DescService): ServiceDefinition {
  return Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinition(method)]))
}

export function methodDefinition(method: DescMethod): MethodDefinition<object, object> {
  const serialize = (schema: DescMethod['input']) => (message: object) =>
    Buffer.isBuffer(message)
      ? message
      : Buffer.from(toBinary(schema, create(schema, message as Record<string, unknown>)))
  const deserialize = (schema: DescMethod['input']) => (bytes: Buffer) => fromBinary(schema, bytes)
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: serialize(method.input),
    requestDeserialize: deserialize(method.input),
    responseSerialize: serialize(method.output),
    responseDeserialize: deserialize(method.output),
  }
}

/** AmbitError codes ⇄ gRPC statuses: the code survives as the first word of the details. */
const statusByCode: Readonly<Record<string, status>> = {
  CONTROL_UNAUTHENTICATED: status.UNAUTHENTICATED,
  CONTROL_DENIED: status.PERMISSION_DENIED,
  CONTROL_BAD_REQUEST: status.INVALID_ARGUMENT,
  CONTROL_UNAVAILABLE: status.UNAVAILABLE,
  CONTROL_OVERLOADED: status.RESOURCE_EXHAUSTED,
}

/** What a server answers for an error: our own are told in full, anything else only as INTERNAL (no inner detail leaks). */
export function toStatus(error: unknown): { code: status; details: string } {
  if (!(error instanceof AmbitError)) return { code: status.INTERNAL, details: 'internal error' }
  return { code: statusByCode[error.code] ?? status.INTERNAL, details: error.message }
}

/** What a client makes of a gRPC error. */
export function fromStatus(error: unknown, address: string): AmbitError {
  const { code, details } = error as Partial<ServiceError>
  const text = details ?? (error instanceof Error ? error.message : String(error))
  if (code === status.UNAUTHENTICATED) {
    return new AmbitError('CONTROL_UNAUTHENTICATED', `Control at ${address} does not accept the token: ${text}`, {
      hint: 'Check the token file: is it current, for audience istio-ca, and signed for this cluster?',
      cause: error,
    })
  }
  if (code === status.PERMISSION_DENIED) {
    return new AmbitError('CONTROL_DENIED', `Control at ${address} refuses: ${text}`, { cause: error })
  }
  if (code === status.INVALID_ARGUMENT) {
    return new AmbitError('CONTROL_BAD_REQUEST', `Control at ${address} does not understand the request: ${text}`, {
      cause: error,
    })
  }
  return new AmbitError('CONTROL_UNAVAILABLE', `Control at ${address} is not available: ${text}`, {
    hint: 'Is control running there, and is the root certificate file the one it wrote?',
    cause: error,
  })
}
