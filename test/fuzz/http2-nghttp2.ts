// nghttp2, through node:http2, as the other opinion: a server session on a stream in memory that is fed bytes and tells which
// requests it saw, how each ended, and what it answered. Must not live here: what is compared.
import { connect, performServerHandshake, type Http2Session, type ServerHttp2Stream } from 'node:http2'
import { Duplex } from 'node:stream'

/** Bytes in and out of a session, in memory. */
class Pipe extends Duplex {
  readonly written: Buffer[] = []
  override _read(): void {
    // Pushed from outside.
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written.push(Buffer.from(chunk))
    done()
  }
  override _final(done: () => void): void {
    done()
  }
}

export interface SeenRequest {
  readonly id: number
  /** Name and value in turn, names sorted, without cookies' and hosts' specialities. */
  readonly fields: string
  body: string
  /** Its end was told. */
  ended: boolean
  /** It was reset, from either side, or lost with its connection. */
  cut: boolean
}

export interface Opinion {
  readonly requests: readonly SeenRequest[]
  /** Code of the GOAWAY it sent; −1 for none. */
  readonly goaway: number
  /** It heard nothing of what came after some frame. */
  readonly deaf?: boolean
}

/** Fields as text to compare. A fragment is left out: it is cut off here and passed on there. */
export function fieldsOf(list: readonly string[]): string {
  const pairs: string[] = []
  for (let i = 0; i < list.length; i += 2) {
    const name = list[i] ?? ''
    const value = list[i + 1] ?? ''
    pairs.push(`${name}: ${name === ':path' ? value.split('#', 1)[0] : value}`)
  }
  return pairs.sort().join('\n')
}

/** The code of the first GOAWAY with an error in what a session wrote, or −1. */
export function goawayOf(written: Buffer): number {
  for (let at = 0; at + 17 <= written.length;) {
    if (written[at + 3] === 7 && written.readUInt32BE(at + 13) !== 0) return written.readUInt32BE(at + 13)
    at += 9 + written.readUIntBE(at, 3)
  }
  return -1
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What nghttp2 makes of a client's bytes. */
export async function askNghttp2(bytes: Buffer): Promise<Opinion> {
  const pipe = new Pipe()
  const requests: SeenRequest[] = []
  const streams = new Map<ServerHttp2Stream, SeenRequest>()
  const session: Http2Session = performServerHandshake(pipe, { settings: { maxConcurrentStreams: 200 } })
  session.on('error', () => undefined)
  // nghttp2 goes on after a client's GOAWAY with an error (RFC 9113, 6.8: it may finish what it began); Node ends the session.
  let deaf = false
  session.on('goaway', (code: number) => (deaf ||= code !== 0))
  session.on('stream', (stream: ServerHttp2Stream, _headers: object, _flags: number, raw: string[]) => {
    const seen: SeenRequest = { id: stream.id ?? 0, fields: fieldsOf(raw), body: '', ended: false, cut: false }
    requests.push(seen)
    stream.on('error', () => undefined)
    stream.on('data', (chunk: Buffer) => (seen.body += chunk.toString('latin1')))
    stream.on('end', () => (seen.ended = true))
    stream.on('aborted', () => (seen.cut = true))
    streams.set(stream, seen)
  })
  pipe.push(bytes)
  for (let i = 0; i < 4; i++) await turn()
  const goaway = goawayOf(Buffer.concat(pipe.written))
  // Node ends streams that were reset, or whose connection broke, as if they were whole.
  for (const [stream, seen] of streams) {
    // A reset with NO_ERROR leaves no code: such a stream is closed, and its end was never told.
    const reset = stream.rstCode !== 0 || (stream.closed && !seen.ended)
    if (reset || goaway >= 0) seen.cut = true
  }
  session.destroy()
  pipe.destroy()
  await turn()
  return { requests, goaway, deaf }
}

/** The bytes with which nghttp2 asks for these lists of fields, one request each, on one connection. */
export async function requestsOfNghttp2(lists: readonly (readonly string[])[]): Promise<Buffer> {
  const pipe = new Pipe()
  const session = connect('http://a.example', { createConnection: () => pipe })
  session.on('error', () => undefined)
  // Without the server's settings it would wait for them before the first request.
  pipe.push(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
  await turn()
  for (const list of lists) {
    const headers: Record<string, string> = {}
    for (let i = 0; i < list.length; i += 2) headers[list[i] as string] = list[i + 1] as string
    session.request(headers, { endStream: true }).on('error', () => undefined)
    await turn()
  }
  await turn()
  const bytes = Buffer.concat(pipe.written)
  session.destroy()
  pipe.destroy()
  return bytes
}
