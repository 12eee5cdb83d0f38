// Fuzzing of HTTP/2 as a server: generated conversations, right, wrong and mutated, in pieces of random size. What is accepted
// here must mean the same to nghttp2; nothing may crash, hang, go on after the end, or answer out of proportion.
import { http2Server } from '../../agent/http/http2/index.ts'
import type { Connection, OpenInfo } from '../../agent/io/connection.ts'
import type { RequestHead, ServerExchange } from '../../agent/http/message.ts'
import { askNghttp2, fieldsOf, goawayOf, type Opinion, type SeenRequest } from './http2-nghttp2.ts'
import { conversation, mutate, PREFACE, Random } from './http2-random.ts'

export interface FuzzOptions {
  readonly messages: number
  readonly seed: number
  /** Stops earlier after so many seconds. */
  readonly seconds?: number
  /** Only this case; −1 or absent for all. */
  readonly only?: number
  readonly say: (text: string) => void
}

/** Most bytes written for the bytes read: an answer to each frame, and what a session sends by itself. */
const MOST_ANSWERED = 4
const OWN_WORDS = 4_096
const MOST_FINDINGS = 10

const INFO: OpenInfo = {
  local: { address: '127.0.0.1', port: 1 },
  peer: { address: '127.0.0.1', port: 2 },
  alpn: 'h2',
  serverName: '',
  certificates: [],
  secure: false,
}

class Wire implements Connection {
  slot: unknown
  readonly pending = 0
  readonly writable = true
  readonly fd = -1
  readonly info = INFO
  readonly written: Buffer[] = []
  ended = false
  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.written.push(Buffer.from(bytes.subarray(start, end)))
  }
  pause(): void {
    throw new Error('a whole connection was paused')
  }
  resume(): void {
    throw new Error('a whole connection was resumed')
  }
  end(): void {
    this.ended = true
  }
  abort(): void {
    this.ended = true
  }
  detach(): number {
    return -1
  }
}

/** What our server makes of a client's bytes, given in pieces. Throws on a crash, and on events out of order. */
export function askOurs(bytes: Buffer, random: Random): Opinion {
  const wire = new Wire()
  const requests: SeenRequest[] = []
  const seenOf = (exchange: ServerExchange): SeenRequest => {
    const seen = exchange.slot as SeenRequest
    if (seen.cut) throw new Error('an event came after the close')
    return seen
  }
  const server = http2Server({
    onRequest(exchange, head: RequestHead, end) {
      const pseudo = [':method', head.method, ':scheme', head.scheme, ':path', head.path, ':authority', head.authority]
      const id = (exchange as unknown as { id: number }).id
      const seen = { id, fields: fieldsOf([...pseudo, ...head.headers]), body: '', ended: end, cut: false }
      requests.push(seen)
      exchange.slot = seen
    },
    onData(exchange, arena, start, end) {
      const seen = seenOf(exchange)
      if (seen.ended) throw new Error('DATA was delivered after the end')
      seen.body += Buffer.from(arena.subarray(start, end)).toString('latin1')
    },
    onEnd(exchange) {
      const seen = seenOf(exchange)
      if (seen.ended) throw new Error('the end was delivered twice')
      seen.ended = true
    },
    onDrain: () => undefined,
    onClose(exchange, error) {
      const seen = seenOf(exchange)
      if (error === undefined) throw new Error('an exchange that was never answered closed cleanly')
      seen.cut = true
    },
  })
  const feed = server.adopt(wire, INFO)
  for (let at = 0; at < bytes.length;) {
    const size = Math.min(bytes.length - at, random.once(3) ? 1 + random.below(40) : 1 + random.below(bytes.length))
    // Memory of its own, spoilt afterwards: nothing may rely on bytes of an earlier turn.
    const piece = Buffer.from(bytes.subarray(at, at + size))
    const before = wire.ended
    const count = requests.length
    feed.receive(piece, 0, piece.length)
    if (before && requests.length > count) throw new Error('a request was delivered after the connection ended')
    piece.fill(0xff)
    at += size
  }
  const written = Buffer.concat(wire.written)
  if (written.length > OWN_WORDS + bytes.length * MOST_ANSWERED) {
    throw new Error(`${bytes.length} bytes were answered with ${written.length}`)
  }
  const goaway = goawayOf(written)
  if (goaway >= 0 && !wire.ended) throw new Error('the connection goes on after a GOAWAY with an error')
  feed.closed(undefined)
  return { requests, goaway }
}

/** What was accepted here and means something else to nghttp2, or ''. */
export function compare(ours: Opinion, theirs: Opinion): string {
  for (const mine of ours.requests) {
    const other = theirs.requests.find(({ id }) => id === mine.id)
    if (!other) {
      // After its connection error it has no opinion, and none of what it did not hear.
      if (theirs.goaway < 0 && theirs.deaf !== true) return `stream ${mine.id} was a request here and none there`
      continue
    }
    if (other.fields !== mine.fields)
      return `stream ${mine.id} has other fields there:\n${mine.fields}\n---\n${other.fields}`
    if (!mine.ended || theirs.goaway >= 0 || theirs.deaf === true) continue
    if (!other.ended && !other.cut) return `stream ${mine.id} ended here and goes on there`
    if (other.ended && !other.cut && other.body !== mine.body) return `stream ${mine.id} has another body there`
  }
  return ''
}

/** Resolves to true if nothing was found. */
export async function runHttp2(options: FuzzOptions): Promise<boolean> {
  const { say } = options
  const until = options.seconds === undefined ? Infinity : performance.now() + options.seconds * 1_000
  const verdicts = { both: 0, neither: 0, oursOnly: 0, theirsOnly: 0 }
  let findings = 0
  let cases = 0
  let slowest = 0
  const one = async (number: number): Promise<void> => {
    const random = new Random(Math.imul(options.seed, 0x9e3779b1) + number)
    // One in eight is noise: for crashes only, most of it goes no further than the first frame.
    const noise = random.once(8)
    const bytes = noise ? Buffer.concat([PREFACE, mutate(random, random.bytes(400))]) : conversation(random)
    let problem: string
    try {
      const begun = performance.now()
      const ours = askOurs(bytes, random)
      slowest = Math.max(slowest, performance.now() - begun)
      const theirs = await askNghttp2(bytes)
      problem = compare(ours, theirs)
      if (ours.goaway >= 0) verdicts[theirs.goaway >= 0 ? 'both' : 'oursOnly']++
      else verdicts[theirs.goaway >= 0 ? 'theirsOnly' : 'neither']++
      if (options.only === number) say(JSON.stringify({ ours, theirs }, undefined, 2))
    } catch (error) {
      problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
    }
    if (problem === '') return
    findings++
    say(`case ${number} of seed ${options.seed}: ${problem}\n${bytes.toString('hex')}`)
  }
  if (options.only !== undefined && options.only >= 0) {
    await one(options.only)
    return findings === 0
  }
  while (cases < options.messages && performance.now() < until && findings < MOST_FINDINGS) await one(cases++)
  say(
    `${cases} conversations, ${findings} findings; connection errors: ${verdicts.both} both, ${verdicts.oursOnly} only here, ` +
      `${verdicts.theirsOnly} only there; slowest ${slowest.toFixed(1)} ms`,
  )
  return findings === 0
}
