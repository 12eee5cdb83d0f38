// A budgeted run of the HTTP/2 and HPACK fuzzers; each time another seed, told when it finds something.
import { expect, it } from 'vitest'
import { runHpack } from './hpack.ts'
import { runHttp2 } from './http2.ts'

const SECONDS = 7
const seed = Date.now() % 1_000_000

it.each([
  ['HTTP/2 conversations mean to nghttp2 what they mean here, and none crashes, hangs or costs too much', runHttp2],
  ['HPACK blocks mean to nghttp2 what they mean here, and broken ones are broken there', runHpack],
])('%s', async (_what, run) => {
  const told: string[] = []
  const clean = await run({ messages: 1_000_000, seconds: SECONDS, seed, say: (text) => void told.push(text) })
  expect(clean, told.join('\n')).toBe(true)
  // It did run: a few hundred at the very least.
  expect(Number(/^([0-9]+) conversations/m.exec(told.at(-1) ?? '')?.[1])).toBeGreaterThan(300)
})
