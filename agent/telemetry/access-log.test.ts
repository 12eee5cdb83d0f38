import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { AccessLog, FLUSH_MS, MAX_HELD } from './access-log.ts'

describe('AccessLog', () => {
  let folder: string
  let file: string
  let fd: number
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-access-'))
    file = join(folder, 'log')
    fd = openSync(file, 'a')
  })
  afterEach(() => {
    closeSync(fd)
    rmSync(folder, { recursive: true })
  })

  it('writes lines together, in order, after a short while', async () => {
    const clock = new ManualClock()
    const log = new AccessLog({ fd, clock })
    log.entry({ a: 1, gone: undefined })
    log.line('{"b":2}')
    expect(readFileSync(file, 'utf8')).toBe('')
    clock.advance(FLUSH_MS)
    await log.flush()
    expect(readFileSync(file, 'utf8')).toBe('{"a":1}\n{"b":2}\n')
  })

  it('loses nothing when closed', async () => {
    const log = new AccessLog({ fd, clock: new ManualClock() })
    for (let i = 0; i < 5000; i++) log.entry({ i, text: 'x'.repeat(50) })
    await log.close()
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { i: number }).i)).toEqual(
      Array.from({ length: 5000 }, (_, i) => i),
    )
    log.line('{}')
    expect(log.dropped).toBe(1)
  })

  it('holds a bounded amount and counts what it drops', async () => {
    const log = new AccessLog({ fd, clock: new ManualClock() })
    const line = 'x'.repeat(1024 * 1024)
    // Nothing is written within one turn: the first line goes out, the rest is held up to the limit.
    for (let i = 0; i < 10; i++) log.line(line)
    expect(log.dropped).toBe(10 - 1 - Math.floor(MAX_HELD / line.length) + 1)
    await log.close()
    expect(readFileSync(file).length).toBe((10 - log.dropped) * (line.length + 1))
  })

  it('counts lines that cannot be written', async () => {
    const readonly = openSync(file, 'r')
    const log = new AccessLog({ fd: readonly, clock: new ManualClock() })
    log.line('{}')
    log.line('{}')
    await log.flush()
    expect(log.dropped).toBe(2)
    closeSync(readonly)
  })
})
