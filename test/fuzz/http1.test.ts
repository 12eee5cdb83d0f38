// A budgeted run of the HTTP/1.1 fuzzer (the long one: `npm run fuzz -- http1 --messages 10000000`), and proof that it can find
// something: it must see a codec that is fooled. Must not live here: grammar, reading, judging (http1/).
import { describe, expect, it } from 'vitest'
import { compare } from './http1/compare.ts'
import { readRequests, readResponses } from './http1/llhttp.ts'
import { emptyMessage, type Reading } from './http1/message.ts'
import { requestReader } from './http1/ours.ts'
import { fuzzHttp1 } from './http1/run.ts'

const SECONDS = 20

const tick = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('HTTP/1.1 beside llhttp', () => {
  it(
    `frames every message it accepts as llhttp does, for ${SECONDS} seconds`,
    async () => {
      // Another seed each time; a finding tells it, so that `npm run fuzz -- http1 --seed S --case N` shows it again.
      const seed = Date.now() % 1_000_000
      const { findings, messages, accepted, refused } = await fuzzHttp1({ messages: 1e9, seed, seconds: SECONDS })
      expect(findings).toEqual([])
      // Neither everything nor nothing is accepted, or nothing is compared.
      expect(accepted / messages).toBeGreaterThan(0.2)
      expect(refused).toBeGreaterThan(0)
    },
    (SECONDS + 60) * 1000,
  )

  it('gives the same messages for the same seed', async () => {
    const run = () => fuzzHttp1({ messages: 2000, seed: 7 })
    expect(await run()).toEqual(await run())
  })

  it('sees a message that is framed in another way', async () => {
    const text = 'POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n'
    const bytes = Buffer.from(text)
    const reader = requestReader()
    reader.read(bytes, 0, bytes.length)
    await tick()
    const ours = reader.result
    const theirs = readRequests(bytes, () => false)
    const judge = (change: (reading: Reading) => void): string => {
      const fooled = structuredClone(ours)
      change(fooled)
      return compare(fooled, theirs, () => undefined)
    }
    expect(judge(() => undefined)).toBe('')
    expect(judge((one) => void ((one.messages[0] ?? emptyMessage()).body = 'ab'))).toBe('message 0 differs in its body')
    expect(judge((one) => void ((one.messages[1] ?? emptyMessage()).target = 'a /c'))).toBe(
      'message 1 differs in its target',
    )
    expect(judge((one) => void ((one.messages[0] ?? emptyMessage()).fields = ''))).toBe(
      'message 0 differs in its fields',
    )
    expect(judge((one) => void one.messages.pop())).toBe('2 messages are complete there, 1 here')
    expect(judge((one) => void one.messages.push({ ...emptyMessage(), complete: true }))).toMatch(
      /message 2 is complete here/,
    )
  })

  it('takes a response without its end for unfinished in both', () => {
    const { messages } = readResponses(Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc'), 'GET')
    expect(messages.map((one) => one.complete)).toEqual([false])
  })
})
