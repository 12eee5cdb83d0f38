// What the tests of the native transport share: certificates, TLS settings, listeners that are stopped after each test. Imported by tests
// only. Must not live here: assertions.
import { afterEach } from 'vitest'
import type { KeyPair, Listener, ListenOptions, TlsSettings } from '../connection.ts'
import { Recorder } from '../contract.ts'
import { transport } from '../index.ts'
import { testRoot, type TestRoot } from '../testcerts.ts'

export const CLIENT = 'spiffe://cluster.local/ns/shop/sa/frontend'
export const SERVER = 'spiffe://cluster.local/ns/shop/sa/my-service'

export interface Certificates {
  readonly root: TestRoot
  readonly clientPair: KeyPair
  readonly serverPair: KeyPair
}

/** A root with one certificate for each side; takes a moment, so once per file. */
export function issueCertificates(): Certificates {
  const root = testRoot('mesh')
  return { root, clientPair: root.issue(CLIENT), serverPair: root.issue(SERVER) }
}

export function tlsSettings(root: TestRoot, pair: () => KeyPair, more: Partial<TlsSettings>): TlsSettings {
  return { trust: () => root.certificate, certificate: () => pair(), verify: () => undefined, alpn: ['h2'], ...more }
}

export interface Sockets {
  readonly listeners: Listener[]
  listen(options?: Partial<ListenOptions>): Promise<{ server: Recorder; listener: Listener }>
  connect(listener: Listener, tls?: TlsSettings, more?: object): Recorder
}

/** Listeners on loopback and clients of them; called inside a describe, it stops the listeners after each test. */
export function useSockets(): Sockets {
  const listeners: Listener[] = []
  afterEach(async () => {
    for (const listener of listeners.splice(0)) await listener.stop()
  })
  return {
    listeners,
    async listen(options = {}) {
      const server = new Recorder()
      const listener = await transport.listen({ handler: server, host: '127.0.0.1', port: 0, ...options })
      listeners.push(listener)
      return { server, listener }
    },
    connect(listener, tls, more = {}) {
      const client = new Recorder()
      const { address: host, port } = listener.address
      transport.connect({ handler: client, host, port, ...(tls ? { tls } : {}), ...more })
      return client
    },
  }
}
