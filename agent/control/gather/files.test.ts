import {
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock, systemClock } from '../../base/clock.ts'
import { openLog, silentLog } from '../../base/log.ts'
import { gatherFiles } from './files.ts'
import type { Gather, Snapshot } from './gather.ts'

const SERVICE = (name: string) =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\nspec: {ports: [{port: 80}]}\n`
const names = (snapshot: Snapshot | undefined) => snapshot?.translation.services.map((one) => one.name)

let folder: string
let gather: Gather | undefined
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'ambit-gather-'))))
afterEach(async () => {
  await gather?.stop()
  rmSync(folder, { recursive: true, force: true })
})

const write = (name: string, text: string) => writeFileSync(join(folder, name), text)

/** Waits on the real file system: its events have no clock of ours. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not happen within 5 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

async function started(rescanMs = 60_000): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = []
  gather = gatherFiles({ paths: [folder], log: silentLog, clock: systemClock, rescanMs })
  await gather.start((snapshot) => snapshots.push(snapshot))
  return snapshots
}

describe('gathering from a folder', () => {
  it('gives everything before it has started, then each change', async () => {
    write('a.yaml', SERVICE('a'))
    const snapshots = await started()
    expect(snapshots.map(names)).toEqual([['a']])
    write('b.yaml', SERVICE('b'))
    await until(() => snapshots.length === 2)
    expect(names(snapshots[1])).toEqual(['a', 'b'])
    rmSync(join(folder, 'a.yaml'))
    await until(() => snapshots.length === 3)
    expect(names(snapshots[2])).toEqual(['b'])
    expect(snapshots.map((one) => one.version)).toEqual([1, 2, 3])
  })

  it('sees folders that are made later, and files replaced by renaming', async () => {
    const snapshots = await started()
    mkdirSync(join(folder, 'sub'))
    writeFileSync(join(folder, 'sub', 'a.yaml'), SERVICE('a'))
    await until(() => names(snapshots.at(-1))?.join() === 'a')
    writeFileSync(join(folder, 'sub', 'b.yaml'), SERVICE('b'))
    await until(() => names(snapshots.at(-1))?.join() === 'a,b')
    writeFileSync(join(folder, '.new'), SERVICE('c'))
    renameSync(join(folder, '.new'), join(folder, 'sub', 'a.yaml'))
    await until(() => names(snapshots.at(-1))?.join() === 'c,b')
  })

  it('watches a file given by itself, also when it is replaced', async () => {
    write('only.yaml', SERVICE('a'))
    const snapshots: Snapshot[] = []
    gather = gatherFiles({ paths: [join(folder, 'only.yaml')], log: silentLog, clock: systemClock, rescanMs: 60_000 })
    await gather.start((snapshot) => snapshots.push(snapshot))
    write('only.yaml', SERVICE('b'))
    await until(() => names(snapshots.at(-1))?.join() === 'b')
    write('next', SERVICE('c'))
    renameSync(join(folder, 'next'), join(folder, 'only.yaml'))
    await until(() => names(snapshots.at(-1))?.join() === 'c')
    write('only.yaml', SERVICE('d'))
    await until(() => names(snapshots.at(-1))?.join() === 'd')
  })

  it('keeps the last good version of what becomes bad, and says so once in the log', async () => {
    const file = join(folder, 'log')
    const log = openLog({ program: 'test', level: 'info', fd: openSync(file, 'w') })
    write('a.yaml', SERVICE('a'))
    const snapshots: Snapshot[] = []
    gather = gatherFiles({ paths: [folder], log, clock: systemClock, rescanMs: 60_000 })
    await gather.start((snapshot) => snapshots.push(snapshot))
    write('a.yaml', SERVICE('a').replace('port: 80', 'port: eighty'))
    await until(() => snapshots.length === 2)
    write('b.yaml', SERVICE('b'))
    await until(() => snapshots.length === 3)
    expect(names(snapshots[2])).toEqual(['b', 'a'])
    const lines = readFileSync(file, 'utf8').trim().split('\n')
    const told = lines.map((line) => JSON.parse(line) as { code: string; line: number; field: string; msg: string })
    expect(told.filter((one) => one.code === 'CONFIG_WRONG_TYPE')).toMatchObject([
      {
        line: 4,
        field: 'spec.ports[0].port',
        msg: `${join(folder, 'a.yaml')}:4: Service default/a: spec.ports[0].port: Must be a number, not the string "eighty". [CONFIG_WRONG_TYPE]`,
      },
    ])
    expect(told.filter((one) => one.code === 'CONFIG_LAST_GOOD_KEPT')).toHaveLength(1)
  })

  it('does not take a file that is emptied before it is written for a removal', async () => {
    write('a.yaml', SERVICE('a'))
    const snapshots = await started()
    truncateSync(join(folder, 'a.yaml'))
    await new Promise((resolve) => setTimeout(resolve, 80))
    write('a.yaml', SERVICE('b'))
    await until(() => snapshots.length === 2)
    expect(snapshots.map(names)).toEqual([['a'], ['b']])
    truncateSync(join(folder, 'a.yaml'))
    await until(() => snapshots.length === 3)
    expect(names(snapshots[2])).toEqual([])
  })

  it('keeps everything when the folder itself disappears, and goes on when it is back', async () => {
    write('a.yaml', SERVICE('a'))
    const snapshots = await started(50)
    renameSync(folder, `${folder}-away`)
    await until(() => snapshots.some((one) => one.problems.some((problem) => problem.code === 'CONFIG_UNREADABLE')))
    expect(names(snapshots.at(-1))).toEqual(['a'])
    renameSync(`${folder}-away`, folder)
    await until(() => !snapshots.at(-1)?.problems.some((problem) => problem.code === 'CONFIG_UNREADABLE'))
    write('b.yaml', SERVICE('b'))
    await until(() => names(snapshots.at(-1))?.join() === 'a,b')
  })

  it('refuses to start without its folder, by name', async () => {
    const missing = gatherFiles({ paths: ['/does/not/exist'], log: silentLog, clock: systemClock })
    await expect(missing.start(() => undefined)).rejects.toThrow('The configuration /does/not/exist cannot be read')
  })

  it('finds by its rescan what no event told, and says nothing where nothing changed', async () => {
    const clock = new ManualClock()
    write('a.yaml', SERVICE('a'))
    const snapshots: Snapshot[] = []
    gather = gatherFiles({ paths: [folder], log: silentLog, clock, rescanMs: 5000 })
    await gather.start((snapshot) => snapshots.push(snapshot))
    clock.advance(20_000)
    expect(snapshots).toHaveLength(1)
    // Written and looked for in one turn: no event has been delivered yet.
    write('b.yaml', SERVICE('b'))
    clock.advance(5000)
    expect(snapshots.map(names)).toEqual([['a'], ['a', 'b']])
  })
})
