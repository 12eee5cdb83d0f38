// Fuzzing of HPACK: what our encoder writes nghttp2 must read as the same fields, what nghttp2's encoder writes we must; of
// blocks that were changed at random both must say the same, or both that they are broken; noise must cost little.
import { HpackDecoder, type HeaderBlock } from '../../agent/http/hpack/decoder.ts'
import { HpackEncoder } from '../../agent/http/hpack/encoder.ts'
import { HpackError } from '../../agent/http/hpack/error.ts'
import { askOurs, compare, type FuzzOptions } from './http2.ts'
import { askNghttp2, fieldsOf, requestsOfNghttp2 } from './http2-nghttp2.ts'
import { block, fields, frame, mutate, PREFACE, Random } from './http2-random.ts'

const COMPRESSION_ERROR = 9
const MOST_FINDINGS = 10
/** Bound of one block of noise, milliseconds: far above what it takes, far below what a hang takes. */
const MOST_MS = 5_000

function listOf(random: Random): string[] {
  const path = random.pick(['/', '/a', '/pkg.Echo/Unary', `/${random.below(9)}`])
  return [
    ':method',
    random.pick(['GET', 'POST']),
    ':scheme',
    'http',
    ':path',
    path,
    ':authority',
    'a',
    ...fields(random, 8),
  ]
}

/** Requests on one connection, with our encoder's table; `broken`: one of the blocks is changed. */
async function against(random: Random, broken: boolean): Promise<string> {
  const encoder = new HpackEncoder()
  const lists = Array.from({ length: 1 + random.below(5) }, () => listOf(random))
  // The same list again is where a table shows.
  if (random.once(2)) lists.push(lists[0] as string[])
  const bad = broken ? random.below(lists.length) : -1
  const parts = [PREFACE, frame(4, 0, 0)]
  for (const [i, list] of lists.entries()) {
    const written = block(encoder, list)
    parts.push(frame(1, 5, 1 + 2 * i, i === bad ? mutate(random, written) : written))
  }
  const bytes = Buffer.concat(parts)
  const ours = askOurs(bytes, random)
  const theirs = await askNghttp2(bytes)
  const difference = compare(ours, theirs)
  if (difference !== '') return `${difference}\n${bytes.toString('hex')}`
  if (broken) {
    if ((ours.goaway === COMPRESSION_ERROR) === (theirs.goaway === COMPRESSION_ERROR)) return ''
    return `ended with ${ours.goaway} here and ${theirs.goaway} there\n${bytes.toString('hex')}`
  }
  for (const [i, list] of lists.entries()) {
    const read = theirs.requests.find(({ id }) => id === 1 + 2 * i)
    if (read?.fields !== fieldsOf(list))
      return `nghttp2 reads request ${i} of\n${lists.join('\n')}\nas\n${read?.fields}`
  }
  return ''
}

/** Requests that nghttp2's encoder wrote. */
async function from(random: Random): Promise<string> {
  const lists = Array.from({ length: 1 + random.below(5) }, () => listOf(random))
  const bytes = await requestsOfNghttp2(lists)
  const { requests } = askOurs(bytes, random)
  for (const [i, list] of lists.entries()) {
    if (requests[i]?.fields !== fieldsOf(list))
      return `request ${i} of\n${lists.join('\n')}\nis read as\n${requests[i]?.fields}`
  }
  return ''
}

/** Noise, on one decoder until it has had enough. */
function noise(random: Random): string {
  const most = random.pick([100, 4_096, 65_536])
  const decoder = new HpackDecoder(4_096, most)
  const out: HeaderBlock = { headers: [], malformed: '', overflow: false }
  for (let i = 0; i < 8; i++) {
    const bytes = random.once(2)
      ? random.bytes(300)
      : Buffer.alloc(random.below(3_000), random.pick([0x82, 0xbe, 0x20, 0x40]))
    const begun = performance.now()
    let broken = false
    try {
      decoder.decode(bytes, 0, bytes.length, out)
    } catch (error) {
      if (!(error instanceof HpackError)) throw error
      broken = true
    }
    if (performance.now() - begun > MOST_MS) throw new Error(`a block took too long: ${bytes.toString('hex')}`)
    if (broken) return ''
    const size = out.headers.reduce((sum, text) => sum + text.length + 16, 0)
    if (size > most || decoder.size > 4_096) return `a list of ${size} bytes, a table of ${decoder.size}`
  }
  return ''
}

/** Resolves to true if nothing was found. */
export async function runHpack(options: FuzzOptions): Promise<boolean> {
  const { say, seed } = options
  const until = options.seconds === undefined ? Infinity : performance.now() + options.seconds * 1_000
  let findings = 0
  let cases = 0
  const one = async (number: number): Promise<void> => {
    const random = new Random(Math.imul(seed, 0x85ebca6b) + number)
    let problem: string
    try {
      const kind = random.below(8)
      if (kind < 3) problem = await against(random, true)
      else if (kind < 5) problem = await against(random, false)
      else if (kind === 5) problem = await from(random)
      else problem = noise(random)
    } catch (error) {
      problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
    }
    if (problem === '') return
    findings++
    say(`case ${number} of seed ${seed}: ${problem}`)
  }
  if (options.only !== undefined && options.only >= 0) await one(options.only)
  else while (cases < options.messages && performance.now() < until && findings < MOST_FINDINGS) await one(cases++)
  say(`${cases} conversations, ${findings} findings`)
  return findings === 0
}
