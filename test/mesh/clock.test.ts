// The wall clock of one program jumps under load, by libfaketime: traffic goes on, policy stays enforced. Must not live
// here: renewals after a jump (agent/pki/manager.test.ts), timers (agent/base/clock.ts).
import { existsSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LoadSummary } from '../../agent/sandbox/app/load.ts'
import { eventually, openWorld, shop } from '../world/sandbox.ts'

const URL_API = 'http://my-service/api/x'
const HOUR = 3_600_000
let world: Awaited<ReturnType<typeof openWorld>>
const folder = mkdtempSync(join(tmpdir(), 'ambit-clock-'))
beforeAll(async () => {
  world = await openWorld(shop)
})
afterAll(async () => {
  await world?.close()
  rmSync(folder, { recursive: true })
})

/** Debian's, wherever this machine's libraries are. */
function libfaketime(): string {
  const found = readdirSync('/usr/lib')
    .map((name) => `/usr/lib/${name}/faketime/libfaketimeMT.so.1`)
    .find((path) => existsSync(path))
  if (found === undefined) throw new Error('libfaketime is not installed: deploy/setup.sh --test')
  return found
}

/** Restarts a program so that its wall clock, and nothing else, is what `jump` says. */
async function restartWithClock(program: string): Promise<void> {
  const pidOf = (): number | undefined => world.sandbox.programs()[program]
  const faked = {
    LD_PRELOAD: libfaketime(),
    FAKETIME_TIMESTAMP_FILE: join(folder, program),
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  jump(program, 0)
  const before = pidOf()!
  Object.assign(process.env, faked)
  try {
    process.kill(before, 'SIGKILL')
    await eventually('another process', () => pidOf() !== undefined && pidOf() !== before, 20_000)
  } finally {
    for (const name of Object.keys(faked)) delete process.env[name]
  }
  await eventually('traffic', async () => (await load('-n', '20', '--close')).codes['200'] === 20, 30_000)
}
/** The program, and no other that was restarted before, reads its file at each look at its clock: it is never there in halves. */
function jump(program: string, hours: number): void {
  const offset = join(folder, program)
  writeFileSync(`${offset}.part`, `${hours < 0 ? '' : '+'}${Math.round(hours * 3_600)}\n`)
  renameSync(`${offset}.part`, offset)
}

async function load(...args: string[]): Promise<LoadSummary> {
  const { out, err } = await world.exec('frontend', ['ambit', 'app', 'load', URL_API, ...args])
  if (!out.startsWith('{')) throw new Error(err)
  return JSON.parse(out) as LoadSummary
}
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Connections that are kept, new ones, and such as are refused, over the jumps. */
async function unchanged(program: string, ...hours: readonly number[]): Promise<void> {
  const seconds = String(2 * (1 + hours.length))
  const running = Promise.all([
    load('-d', seconds, '-c', '4', '-r', '40'),
    load('-d', seconds, '-c', '4', '-r', '40', '--close'),
    world.exec('intruder', ['ambit', 'app', 'load', URL_API, '-d', seconds, '-c', '4', '-r', '40', '--close']),
  ])
  for (const one of hours) {
    await pause(2_000)
    jump(program, one)
  }
  const [kept, fresh, refused] = await running
  for (const { codes, errors, requests } of [kept, fresh])
    expect({ codes, errors }).toEqual({ codes: { 200: requests }, errors: {} })
  const { codes, errors, requests } = JSON.parse(refused.out) as LoadSummary
  expect({ codes, errors }).toEqual({ codes: { 403: requests }, errors: {} })
  expect(requests).toBeGreaterThan(50)
}

/** Lines of a program from after a jump of so many hours. */
const linesAfter = (program: string, hours: number) =>
  world.logs(program).filter(({ time }) => Date.parse(String(time)) > Date.now() + (hours - 1) * HOUR)

describe('a wall clock that jumps', () => {
  it.each(['agent-node-1', 'agent-node-2'])(
    'in %s: nothing is lost',
    async (program) => {
      await restartWithClock(program)
      // Back, within what a certificate allows for clocks that differ; ahead; past the half of its life.
      await unchanged(program, -1 / 60, 6, 13, 0)
      expect(linesAfter(program, 13).length).toBeGreaterThan(0)
    },
    90_000,
  )

  it('in control: what is held stays in force, and edits are taken when it is right again', async () => {
    await restartWithClock('control')
    await unchanged('control', 6, 0)
    // From the shop's own file, so that a second try may do it again.
    const before = readFileSync(join(shop, '40-traffic.yaml'), 'utf8')
    const after = before.replace('weight: 80', 'weight: 0').replace('weight: 20', 'weight: 100')
    expect(after).not.toBe(before)
    world.write('40-traffic.yaml', after)
    await eventually(
      'the edit',
      async () => {
        expect((await load('-n', '20')).versions).toEqual({ v2: 20 })
        return true
      },
      20_000,
    )
  }, 90_000)
})
