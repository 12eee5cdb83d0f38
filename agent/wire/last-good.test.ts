import { mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadLastGood, saveLastGood, type HeldState } from './last-good.ts'

describe('the last good state', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ambit-last-good-'))
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const state: HeldState = new Map([
    ['Address', new Map([['a', { version: '1', bytes: Uint8Array.of(1, 2, 3) }]])],
    ['Authorization', new Map([['b/c', { version: '2', bytes: new Uint8Array() }]])],
  ])

  it('comes back as it was saved, readable by its owner only', async () => {
    const file = join(folder, 'deep', 'state')
    await saveLastGood(file, state)
    const loaded = await loadLastGood(file)
    expect(
      [...(loaded ?? [])].map(([kind, held]) => [kind, [...held].map(([n, r]) => [n, r.version, [...r.bytes]])]),
    ).toEqual([
      ['Address', [['a', '1', [1, 2, 3]]]],
      ['Authorization', [['b/c', '2', []]]],
    ])
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  it('is absent without a word when there is no file', async () => {
    expect(await loadLastGood(join(folder, 'none'))).toBeUndefined()
  })

  it('is refused whole when a byte of the file changed or its end is missing', async () => {
    const file = join(folder, 'state')
    await saveLastGood(file, state)
    const bytes = await readFile(file)
    for (const damaged of [
      bytes.subarray(0, -1),
      Buffer.concat([bytes, Buffer.of(0)]),
      Buffer.from(bytes).fill(0xee, bytes.length - 3),
      Buffer.from('something else'),
    ]) {
      await writeFile(file, damaged)
      await expect(loadLastGood(file)).rejects.toMatchObject({ code: 'STATE_UNREADABLE' })
    }
  })

  it('keeps the old file when the new one cannot be written', async () => {
    // A name of which the one beside it is too long.
    const file = join(folder, 's'.repeat(250))
    await saveLastGood(join(folder, 'state'), state)
    await rename(join(folder, 'state'), file)
    await expect(saveLastGood(file, new Map())).rejects.toMatchObject({ code: 'STATE_NOT_WRITTEN' })
    expect((await loadLastGood(file))?.size).toBe(2)
  })
})
