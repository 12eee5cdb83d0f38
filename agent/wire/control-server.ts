// The gRPC server of control: TLS with a certificate that can be renewed while it runs, delta xDS and the CA on one port.
// Must not live here: what is served.
import {
  experimental,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { KeyPair } from '../io/connection.ts'
import './grpc.ts'

export interface ControlServerOptions {
  /** `HOST:PORT`, port 0 = any. */
  readonly listen: string
  readonly certificate: KeyPair
  readonly services: readonly {
    readonly definition: ServiceDefinition
    readonly implementation: UntypedServiceImplementation
  }[]
}

export interface ControlServer {
  readonly port: number
  /** New connections are served with this certificate from now on. */
  setCertificate(certificate: KeyPair): void
  /** Lets calls in work finish for `graceMs`, then cuts. */
  close(graceMs: number): Promise<void>
}

/** A client's list of the versions it holds: some 100 bytes for each resource, 100 000 resources. */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024

/** Rejects with CONTROL_LISTEN naming the address. */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const identity = new RenewableIdentity(options.certificate)
  const server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.max_concurrent_streams': 1_024,
  })
  for (const service of options.services) server.addService(service.definition, service.implementation)
  let port: number
  try {
    port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(options.listen, identity.credentials(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      )
    })
  } catch (error) {
    throw new AmbitError('CONTROL_LISTEN', `Control cannot listen on ${options.listen}: ${messageOf(error)}`, {
      hint: 'Is another control running there? Choose another address with --listen.',
      cause: error,
    })
  }
  return {
    port,
    setCertificate: (certificate) => identity.set(certificate),
    async close(graceMs) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          server.forceShutdown()
          // grpc-js loses the end of a session that breaks while it closes, and would have us wait for ever.
          resolve()
        }, graceMs)
        server.tryShutdown(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    },
  }
}

type Provider = Parameters<typeof experimental.createCertificateProviderServerCredentials>[0]
type IdentityListener = Parameters<Provider['addIdentityCertificateListener']>[0]

/** grpc-js's way to change a server's certificate without a new socket. */
class RenewableIdentity implements Provider {
  readonly #listeners = new Set<IdentityListener>()
  #current: KeyPair

  constructor(certificate: KeyPair) {
    this.#current = certificate
  }

  credentials(): ServerCredentials {
    // The declared parameter names are swapped in grpc-js 1.14: the first is the identity, the second the clients' CA.
    return experimental.createCertificateProviderServerCredentials(this, null, false)
  }

  set(certificate: KeyPair): void {
    this.#current = certificate
    for (const listener of this.#listeners) this.#tell(listener)
  }

  addIdentityCertificateListener(listener: IdentityListener): void {
    this.#listeners.add(listener)
    // Later, as a file watcher would: grpc-js registers what hears of the certificate only after this call.
    queueMicrotask(() => this.#tell(listener))
  }

  removeIdentityCertificateListener(listener: IdentityListener): void {
    this.#listeners.delete(listener)
  }

  addCaCertificateListener(): void {}

  removeCaCertificateListener(): void {}

  #tell(listener: IdentityListener): void {
    listener({ certificate: Buffer.from(this.#current.certificate), privateKey: Buffer.from(this.#current.key) })
  }
}
