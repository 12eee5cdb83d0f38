// The thread that fuzzes: batches of cases, all connections of a batch fed in turn, so that what the codec puts off to the end of
// a turn costs one turn a batch. Must not live here: grammar, reading, judging.
import { parentPort, workerData } from 'node:worker_threads'
import { compare } from './compare.ts'
import { ASKED, makeRequest, makeResponse, type Asked, type Meant } from './grammar.ts'
import { readRequests, readResponses } from './llhttp.ts'
import type { Reading } from './message.ts'
import { cuts, mutate } from './mutate.ts'
import { requestReader, responseReader, type Reader } from './ours.ts'
import { Random } from './random.ts'
import type { Progress } from './run.ts'

const BATCH = 256
const MAX_FINDINGS = 8

interface Case {
  index: number
  asked: Asked | undefined
  bytes: Buffer
  ends: number[]
  /** Of a valid case: what its final messages mean. */
  meant: Meant[] | undefined
  messages: number
  reader: Reader
}

const {
  messages: wanted,
  seed,
  only = -1,
  seconds = Infinity,
} = workerData as {
  messages: number
  seed: number
  only?: number
  seconds?: number
}

function makeCase(index: number): Case {
  const r = new Random(seed, index)
  const kind = r.int(8)
  // A quarter is valid, half is almost valid, a quarter has bytes changed on top.
  const valid = kind < 2
  const bad = valid ? 0 : r.pick([0.01, 0.03, 0.1])
  let text = ''
  let asked: Asked | undefined
  const meant: Meant[] = []
  let messages = 0
  if (r.chance(0.4)) {
    asked = r.pick(ASKED)
    const made = makeResponse(r, kind === 7 ? 0 : bad, asked)
    text = made.text
    meant.push(made.meant)
    messages = 1 + made.informational
  } else {
    messages = r.chance(0.5) ? 1 : 2 + r.int(4)
    for (let i = 0; i < messages; i++) {
      const made = makeRequest(r, kind === 7 ? 0 : bad, i === messages - 1)
      text += made.text
      meant.push(made.meant)
    }
  }
  if (kind >= 6) text = mutate(r, text)
  const bytes = Buffer.from(text, 'latin1')
  const reader = asked === undefined ? requestReader() : responseReader(asked)
  return { index, asked, bytes, ends: cuts(r, bytes.length), meant: valid ? meant : undefined, messages, reader }
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve))

async function feed(cases: readonly Case[]): Promise<void> {
  let left = cases
  for (let round = 0; left.length > 0; round++) {
    const next: Case[] = []
    for (const one of left) {
      const end = one.ends[round] as number
      one.reader.read(one.bytes, round === 0 ? 0 : (one.ends[round - 1] as number), end)
      if (round + 1 < one.ends.length) next.push(one)
    }
    left = next
    await tick()
  }
  for (const one of cases) one.reader.end()
  await tick()
}

const stricter: Record<string, number> = {}
const tell = (reason: string): void => void (stricter[reason] = (stricter[reason] ?? 0) + 1)

function judge(one: Case): { finding: string; theirs: Reading | undefined } {
  const ours = one.reader.result
  const finding = one.meant ? misses(ours, one.meant, one.asked) : ''
  const theirs =
    one.asked === undefined
      ? readRequests(one.bytes, (index) => ours.messages[index]?.tunnel === true)
      : readResponses(one.bytes, one.asked)
  return { finding: finding || compare(ours, theirs, tell), theirs }
}

/** What was generated as valid must be taken, with the meaning it was generated with. */
function misses(ours: Reading, meant: readonly Meant[], asked: Asked | undefined): string {
  const seen = asked === undefined ? ours.messages : ours.messages.slice(-1)
  if (seen.length !== meant.length)
    return `of ${meant.length} valid messages ${seen.length} were taken (${ours.stopped})`
  for (const [index, { start, body, trailers }] of meant.entries()) {
    const message = seen[index]
    if (!message?.complete && !message?.tunnel) return `valid message ${index} was not completed (${ours.stopped})`
    if (message.start !== start || message.body !== body) return `valid message ${index} was taken for another`
    if (message.trailers.split('\n').length - 1 !== trailers) return `valid message ${index} has other trailers`
  }
  return ''
}

function describe(one: Case, finding: string, theirs: Reading | undefined): string {
  return [
    `FINDING seed ${seed} case ${one.index}: ${finding}`,
    `  bytes ${JSON.stringify(one.bytes.toString('latin1'))}`,
    `  reads end at ${one.ends.join(' ')}${one.asked === undefined ? '' : `, asked ${one.asked}`}`,
    `  here  ${JSON.stringify(one.reader.result)}`,
    `  there ${JSON.stringify(theirs)}`,
  ].join('\n')
}

const count = { cases: 0, messages: 0, accepted: 0, refused: 0 }
const findings: string[] = []
const report = (done: boolean): void =>
  parentPort?.postMessage({ done, ...count, stricter: { ...stricter }, findings } satisfies Progress)

const until = performance.now() + seconds * 1000
while (count.messages < wanted && findings.length < MAX_FINDINGS && performance.now() < until) {
  const from = only >= 0 ? only : count.cases
  const cases = Array.from({ length: only >= 0 ? 1 : BATCH }, (_, i) => makeCase(from + i))
  await feed(cases)
  for (const one of cases) {
    const { finding, theirs } = judge(one)
    count.cases++
    count.messages += one.messages
    const { result } = one.reader
    if (result.stopped !== '' && result.stopped !== 'close') count.refused++
    for (const message of result.messages) if (message.complete) count.accepted++
    if (only >= 0) findings.push(describe(one, finding || 'nothing found', theirs))
    else if (finding !== '') findings.push(describe(one, finding, theirs))
  }
  if (only >= 0) break
  report(false)
}
report(true)
