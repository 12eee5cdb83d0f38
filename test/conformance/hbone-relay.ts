// A program that lets a client of plain TCP speak to an HBONE port: each connection it accepts becomes one over mutual TLS
// with ALPN h2, from a source address of choice; with `--connect IP:PORT` a CONNECT is opened on it first, and the bytes
// are relayed inside. Node's own net, tls and http2, so that it is independent of what it helps to judge.
//
//   agent/bin/node test/conformance/hbone-relay.ts --to HOST:PORT --source IP --certificate FILE --key FILE --trust FILE
//
// Prints the port it listens on, on loopback, and runs until its standard input ends.
import { readFileSync } from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { createServer, type AddressInfo } from 'node:net'
import { finished, type Duplex } from 'node:stream'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    to: { type: 'string' },
    source: { type: 'string' },
    certificate: { type: 'string' },
    key: { type: 'string' },
    trust: { type: 'string' },
    connect: { type: 'string' },
  },
})

function required(name: 'to' | 'source' | 'certificate' | 'key' | 'trust'): string {
  const value = values[name]
  if (value === undefined) {
    console.error(`hbone-relay: --${name} is missing`)
    process.exit(2)
  }
  return value
}

const to = new URL(`tcp://${required('to')}`)
const credentials = {
  cert: readFileSync(required('certificate')),
  key: readFileSync(required('key')),
  ca: readFileSync(required('trust')),
}
const localAddress = required('source')

function dial(): TLSSocket {
  // `allowHalfOpen` is passed on to the socket underneath; the types do not know it.
  const options: ConnectionOptions & { allowHalfOpen: boolean; localAddress: string } = {
    host: to.hostname,
    port: Number(to.port),
    localAddress,
    ...credentials,
    ALPNProtocols: ['h2'],
    minVersion: 'TLSv1.3',
    allowHalfOpen: true,
    // The peer is named by a URI: the path to the root is checked, a host name is not there to check.
    checkServerIdentity: () => undefined,
  }
  return connectTls(options)
}

/** A CONNECT stream inside a connection of its own. */
function openTunnel(authority: string): Duplex {
  const session = connectHttp2(`https://${to.host}`, { createConnection: dial })
  session.on('error', () => undefined)
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false })
  stream.on('response', (headers) => {
    if (headers[':status'] === 200) return
    console.error(`hbone-relay: CONNECT ${authority} was answered with ${headers[':status']}`)
    stream.close()
  })
  stream.on('close', () => session.destroy())
  return stream
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const far: Duplex = values.connect === undefined ? dial() : openTunnel(values.connect)
  client.pipe(far)
  far.pipe(client)
  for (const side of [client, far]) side.on('error', () => undefined)
  // Once one side is gone in both directions nothing it could be told matters any more.
  finished(far, () => client.destroy())
  finished(client, () => far.destroy())
})

server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
process.stdin.resume().on('end', () => process.exit(0))
