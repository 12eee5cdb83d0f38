// The ports of the echo app that are not HTTP: TCP echo with half-close, a server-first port that greets as SMTP does
// (RFC 5321 section 4.2), a sink that answers with count and checksum, a source that sends as much as it is asked for.
// Must not live here: HTTP (http.ts).
import type { Socket } from 'node:net'
import { endsOf, type Speaker } from './answer.ts'
import { Meter, pour } from './pattern.ts'

/** Longest line the SMTP-like and source ports take, in bytes (RFC 5321 section 4.5.3.1.6 allows 1000 for text). */
const MAX_LINE = 1000

/** Sends back what comes, byte for byte, and closes its side when the client has closed its own. */
export function serveTcpEcho(socket: Socket): void {
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk) => {
    if (!socket.write(chunk)) {
      socket.pause()
      socket.once('drain', () => socket.resume())
    }
  })
  socket.on('end', () => socket.end())
}

/** Reads to the end, then answers one JSON line with bytes and sha256. */
export function serveSink(socket: Socket, speaker: Speaker): void {
  const meter = new Meter()
  const ends = endsOf(socket)
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: Buffer) => meter.add(chunk))
  socket.on('end', () => socket.end(`${JSON.stringify({ ...meter.result(), ...speaker, ...ends })}\n`))
}

/** Reads one line, a number of bytes, and sends so many of the pattern. */
export function serveSource(socket: Socket): void {
  lines(socket, (line) => {
    const bytes = /^\d{1,12}$/.test(line) ? Number(line) : 0
    pour(socket, bytes, () => socket.end())
  })
}

/** A mail server's manners: it speaks first. EHLO, NOOP, XWHO (tells whom it saw) and QUIT. */
export function serveSmtp(socket: Socket, speaker: Speaker): void {
  socket.write(`220 ${speaker.pod} ESMTP ambit\r\n`)
  lines(socket, (line) => {
    const verb = line.slice(0, 4).toUpperCase()
    if (verb === 'EHLO' || verb === 'HELO') socket.write(`250 ${speaker.pod}\r\n`)
    else if (verb === 'NOOP') socket.write('250 OK\r\n')
    else if (verb === 'XWHO') socket.write(`250 ${JSON.stringify({ ...speaker, ...endsOf(socket) })}\r\n`)
    else if (verb === 'QUIT') socket.end('221 bye\r\n')
    else socket.write('502 not implemented\r\n')
  })
}

function lines(socket: Socket, onLine: (line: string) => void): void {
  let buffered = ''
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: Buffer) => {
    buffered += chunk.toString('latin1')
    for (let at = buffered.indexOf('\n'); at >= 0; at = buffered.indexOf('\n')) {
      const line = buffered.slice(0, at).trimEnd()
      buffered = buffered.slice(at + 1)
      onLine(line)
    }
    if (buffered.length > MAX_LINE) socket.destroy()
  })
  socket.on('end', () => {
    if (!socket.writableEnded) socket.end()
  })
}
