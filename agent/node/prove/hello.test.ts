import { connect, type AddressInfo } from 'node:net'
import { createServer as createTls } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { testRoot } from '../../io/testcerts.ts'
import { clientHello } from './hello.ts'

describe('the first flight of a canary', () => {
  it('is one that a TLS 1.3 server understands, with the name in it', async () => {
    const { certificate, key } = testRoot('hello').issue('spiffe://cluster.local/ns/a/sa/b')
    const names: string[] = []
    const server = createTls({
      cert: certificate,
      key,
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['h2'],
      SNICallback(name, done) {
        names.push(name)
        done(null)
      },
    })
    server.on('tlsClientError', () => undefined)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const first = await new Promise<Buffer>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.write(clientHello('0123abcd.canary.invalid')))
      socket.once('data', (bytes: Buffer) => {
        socket.destroy()
        resolve(bytes)
      })
    })
    server.close()
    expect(names).toEqual(['0123abcd.canary.invalid'])
    // A handshake record with a ServerHello: the offer was accepted.
    expect([first[0], first[5]]).toEqual([22, 2])
  })

  it('has randomness of its own each time', () => {
    expect(clientHello('a.invalid')).not.toEqual(clientHello('a.invalid'))
  })
})
