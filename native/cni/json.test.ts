// The plugin's reader of JSON beside the language's own: the same documents are refused, the same is understood of the others.
// Under AddressSanitizer, each document in memory of exactly its length.
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { echoProgram } from './test/plugin.ts'

let echo: ChildProcess
const waiting: ((line: string) => void)[] = []

function understood(document: Buffer): Promise<string> {
  return new Promise((resolve) => {
    waiting.push(resolve)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(document.length)
    echo.stdin!.write(Buffer.concat([length, document]))
  })
}

/** What the language makes of a document; undefined if it refuses. */
function reference(document: Buffer): { value: unknown } | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(document)
    return { value: JSON.parse(text) as unknown }
  } catch {
    return undefined
  }
}

async function agrees(document: Buffer): Promise<void> {
  const line = await understood(document)
  const expected = reference(document)
  if (line === 'half') {
    // JSON.parse keeps halves of surrogate pairs and NULs; the plugin does not take such text.
    expect(document.toString()).toMatch(/\\u(d[89a-f]|0000)/i)
    expect(expected).toBeDefined()
    return
  }
  if (!expected) {
    expect(line).toBe('no')
    return
  }
  expect(JSON.parse(line)).toEqual(expected.value)
}

beforeAll(() => {
  echo = spawn(echoProgram(), { stdio: ['pipe', 'pipe', 'inherit'] })
  createInterface({ input: echo.stdout! }).on('line', (line) => waiting.shift()?.(line))
  echo.once('exit', () => {
    for (const done of waiting.splice(0)) done('the program ended')
  })
}, 120_000)
afterAll(() => {
  echo.stdin!.end()
})

/** Text with everything that has a meaning in JSON, in small doses. */
const rubbish = fc
  .array(
    fc.constantFrom(
      ...Array.from('{}[]:,"\\ \t\n\r0123456789-+.eEtrufalsnxyé'),
      '\\u',
      '\\u00e9',
      '\\ud83d\\ude00',
      '\\ud83d',
      'true',
      'null',
      '{"a":',
      '"k":1,',
      '\u{1f600}',
      '\u0001',
      '\u007f',
    ),
    { maxLength: 30 },
  )
  .map((parts) => parts.join(''))
const value = fc.jsonValue({ maxDepth: 6, stringUnit: 'binary' })

describe("the plugin's reader of JSON", () => {
  it('understands every document as the language does', async () => {
    await fc.assert(
      fc.asyncProperty(value, fc.constantFrom(0, 1, '\t'), (doc, indent) =>
        agrees(Buffer.from(JSON.stringify(doc, undefined, indent as number))),
      ),
      { numRuns: 3_000 },
    )
  })

  it('agrees on documents with a byte changed, left out, put in, or cut off', async () => {
    const change = fc.record({ at: fc.nat(), byte: fc.nat(255), how: fc.constantFrom('change', 'drop', 'add', 'cut') })
    await fc.assert(
      fc.asyncProperty(value, fc.array(change, { minLength: 1, maxLength: 3 }), (doc, changes) => {
        let bytes = Buffer.from(JSON.stringify(doc))
        for (const { at, byte, how } of changes) {
          const place = at % (bytes.length + 1)
          const before = bytes.subarray(0, place)
          if (how === 'cut') bytes = Buffer.from(before)
          else if (how === 'add') bytes = Buffer.concat([before, Buffer.from([byte]), bytes.subarray(place)])
          else if (how === 'drop') bytes = Buffer.concat([before, bytes.subarray(place + 1)])
          else bytes = Buffer.concat([before, Buffer.from([byte]), bytes.subarray(place + 1)])
        }
        return agrees(bytes)
      }),
      { numRuns: 5_000 },
    )
  })

  it('agrees on rubbish, and on any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(rubbish, (text) => agrees(Buffer.from(text))),
      { numRuns: 5_000 },
    )
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), (bytes) =>
        agrees(Buffer.concat([Buffer.from('"'), bytes, Buffer.from('"')])),
      ),
      { numRuns: 3_000 },
    )
  })

  it('goes 64 containers deep and no further', async () => {
    const nested = (depth: number): Buffer => Buffer.from('['.repeat(depth) + ']'.repeat(depth))
    expect(await understood(nested(64))).toBe('['.repeat(64) + ']'.repeat(64))
    expect(await understood(nested(65))).toBe('no')
    expect(await understood(Buffer.from('{"a":'.repeat(100_000)))).toBe('no')
  })
})
