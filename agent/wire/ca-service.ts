// IstioCertificateService on the server: who may have which identity, and the signing, are the caller's. Must not live
// here: x509 (pki/), authorisation (control/issue).
import type { sendUnaryData, ServerUnaryCall, UntypedServiceImplementation } from '@grpc/grpc-js'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { IstioCertificateService, type IstioCertificateRequest } from './gen/istio/v1/auth/citadel_pb.js'
import { serviceDefinition, toStatus } from './grpc.ts'
import { credentialsOf, type CallCredentials } from './xds-server.ts'

export interface IssueRequest {
  /** PEM. */
  readonly csr: string
  /** 0: the server's default. */
  readonly validitySeconds: number
  /** `ImpersonatedIdentity`, '' when the caller asks for its own. */
  readonly impersonate: string
}

export interface CaServiceOptions<Caller> {
  readonly log: Logger
  authenticate(credentials: CallCredentials): Promise<Caller>
  /** PEM chain, leaf first, trust bundle last. Throws AmbitError CONTROL_DENIED or CONTROL_BAD_REQUEST. */
  issue(caller: Caller, request: IssueRequest): Promise<readonly string[]>
  /** Bound on requests in work; default 256. Further ones are told to come back. */
  readonly maxConcurrent?: number
}

/** A P-256 request is below 600 bytes. */
const MAX_CSR_CHARACTERS = 8_192

export const caServiceDefinition = serviceDefinition(IstioCertificateService)

export function caServiceImplementation<Caller>(options: CaServiceOptions<Caller>): UntypedServiceImplementation {
  const { maxConcurrent = 256 } = options
  let active = 0
  const serve = async (call: ServerUnaryCall<IstioCertificateRequest, object>): Promise<{ certChain: string[] }> => {
    if (active >= maxConcurrent) {
      throw new AmbitError('CONTROL_OVERLOADED', `control signs ${maxConcurrent} requests already`)
    }
    active++
    try {
      const { csr, validityDuration, metadata } = call.request
      if (csr.length > MAX_CSR_CHARACTERS) {
        throw new AmbitError(
          'CONTROL_BAD_REQUEST',
          `the signing request has more than ${MAX_CSR_CHARACTERS} characters`,
        )
      }
      const caller = await options.authenticate(credentialsOf(call.metadata, call.getPeer()))
      const identity = metadata?.['ImpersonatedIdentity']
      const chain = await options.issue(caller, {
        csr,
        validitySeconds: Number(validityDuration),
        impersonate: typeof identity === 'string' ? identity : '',
      })
      return { certChain: [...chain] }
    } finally {
      active--
    }
  }
  return {
    createCertificate(call: ServerUnaryCall<IstioCertificateRequest, object>, reply: sendUnaryData<object>) {
      serve(call).then(
        (response) => reply(null, response),
        (error: unknown) => {
          options.log.warn({ peer: call.getPeer(), error: messageOf(error) }, 'certificate refused')
          reply(toStatus(error))
        },
      )
    },
  }
}
