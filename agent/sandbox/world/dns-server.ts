// Cluster DNS, the server: UDP and TCP on one address inside the fabric. A program of its own, since a process is in one
// network namespace; the sandbox feeds it records as JSON lines on standard input and its end is the server's end.
// Must not live here: the wire format (dns.ts), which names exist (cluster/names.ts).
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { answerQuery, emptyRecords, parseQuery, type Records } from './dns.ts'

/** TCP connections at once, and how long one may stay silent, in milliseconds (RFC 7766 section 6.2.3). */
const MAX_CONNECTIONS = 256
const IDLE_MS = 10_000

/** Serves until standard input ends. `host` is an address of this namespace. Resolves with the exit code. */
export async function serveDns(host: string, port: number): Promise<number> {
  let records: Records = emptyRecords
  const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  udp.on('message', (message, from) => {
    const query = parseQuery(message)
    if (query) udp.send(answerQuery(query, records, true), from.port, from.address)
  })
  udp.on('error', (error) => {
    process.stderr.write(`${JSON.stringify({ level: 'error', message: error.message })}\n`)
  })
  const tcp = createServer((socket) => {
    let buffered = Buffer.alloc(0)
    socket.setTimeout(IDLE_MS, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      buffered = Buffer.concat([buffered, chunk])
      while (buffered.length >= 2) {
        const length = buffered.readUInt16BE(0)
        if (buffered.length < 2 + length) return
        const query = parseQuery(buffered.subarray(2, 2 + length))
        buffered = buffered.subarray(2 + length)
        if (!query) return socket.destroy()
        const answer = answerQuery(query, records, false)
        const head = Buffer.alloc(2)
        head.writeUInt16BE(answer.length)
        socket.write(Buffer.concat([head, answer]))
      }
    })
  })
  tcp.maxConnections = MAX_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    udp.once('error', reject)
    udp.bind(port, host, resolve)
  })
  await new Promise<void>((resolve, reject) => {
    tcp.once('error', reject)
    tcp.listen(port, host, resolve)
  })
  process.stdout.write('{"message":"listening"}\n')
  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== '') records = JSON.parse(line) as Records
  }
  return 0
}
