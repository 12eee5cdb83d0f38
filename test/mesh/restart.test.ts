// An agent that is killed or replaced under load: what may be lost then, and what not. Short exchanges on new connections, long
// transfers and idle connections, each accounted for by a peer in a pod.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TWO_WAYS } from '../world/meshes.ts'
import { eventually, openWorld, run } from '../world/sandbox.ts'
import { Steady, type Outcomes, type SteadySum } from '../world/steady.ts'

const ECHO = 9004
let world: Awaited<ReturnType<typeof openWorld>>
const loads: Steady[] = []

beforeAll(async () => {
  world = await openWorld(TWO_WAYS)
})
afterAll(async () => {
  for (const load of loads) load.kill()
  await world?.close()
})

const load = async (host: string, longSeconds?: number): Promise<Steady> => {
  const steady = await Steady.start((command) => world.pod('client').exec(command)!, host, ECHO, longSeconds)
  loads.push(steady)
  return steady
}

/** Outcomes but for `ok`. */
const failed = ({ ok: _ok, ...others }: Outcomes): Outcomes => others
/** Connections that could not be opened. */
const unopened = (sum: SteadySum): Outcomes =>
  Object.fromEntries(
    [sum.short, sum.long, sum.idle]
      .flatMap((outcomes) => Object.entries(outcomes))
      .filter(([outcome]) => outcome.startsWith('open') || outcome === 'timeout'),
  )

const pidOf = (program: string): number | undefined => world.sandbox.programs()[program]
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** How often the kernel of a node decided alone that a connection goes from pod to pod. */
async function direct(node: string): Promise<number> {
  const { metricsUrl } = (await world.sandbox.status()).nodes.find((one) => one.name === node)!
  const text = await (await fetch(metricsUrl)).text()
  return Number(/^ambit_kernel_events_total\{event="direct"\} (\d+)$/m.exec(text)?.[1])
}

describe('kill -9 of an agent', () => {
  it.each(['agent-node-1', 'agent-node-2'])(
    '%s: nobody is refused, only what it carried is reset',
    async (program) => {
      const far = await load('far.direct')
      const near = await load('near.direct')
      await later(1_000)
      const before = pidOf(program)!
      process.kill(before, 'SIGKILL')
      await eventually('another process', () => pidOf(program) !== undefined && pidOf(program) !== before)
      await later(3_000)
      const [tunnelled, within] = await Promise.all([far.stop(), near.stop()])
      expect(unopened(tunnelled)).toEqual({})
      // At most one reset for each connection that was open at that moment.
      const lost = (outcomes: Outcomes): number => Object.values(failed(outcomes)).reduce((a, b) => a + b, 0)
      expect(lost(tunnelled.short)).toBeLessThanOrEqual(10)
      expect(lost(tunnelled.long)).toBeLessThanOrEqual(4)
      expect(lost(tunnelled.idle)).toBe(5)
      expect(tunnelled.short['ok']).toBeGreaterThan(100)
      // Who came while no agent was there waited, no longer than one takes to start.
      expect(tunnelled.slowest).toBeLessThan(10)
      // What the kernel decides alone needs no agent: not one is lost, not one waits.
      for (const outcomes of [within.short, within.long, within.idle]) expect(failed(outcomes)).toEqual({})
      expect(within.short['ok']).toBeGreaterThan(100)
      expect(within.idle['ok']).toBe(5)
      await eventually('the metrics', async () => (await direct('node-1')) > 100)
    },
    60_000,
  )
})

describe('an upgrade of an agent', () => {
  it.each(['node-1', 'node-2'])(
    'of %s, old and new beside each other: nothing is lost within the drain time',
    async (node) => {
      const far = await load('far.direct', 1)
      const near = await load('near.direct', 1)
      await later(1_000)
      const before = pidOf(`agent-${node}`)
      const upgraded = world.sandbox.upgradeAgent(node)
      await eventually('the new one leads', () => pidOf(`agent-${node}`) !== before, 30_000)
      // The old one drains by now.
      await later(1_500)
      for (const sum of await Promise.all([far.stop(), near.stop()])) {
        for (const outcomes of [sum.short, sum.long, sum.idle]) expect(failed(outcomes)).toEqual({})
        expect(sum.idle['ok']).toBe(5)
        expect(sum.short['ok']).toBeGreaterThan(50)
      }
      await upgraded
    },
    60_000,
  )
})

describe('both agents killed while control says nothing', () => {
  it('carry mutual TLS between the nodes at once, with the keys that the holder kept', async () => {
    const control = pidOf('control')!
    const call = async (): Promise<void> => {
      const { code, out, err } = await world.exec('direct/client', ['curl', '-sS', '-m', '10', 'http://far.direct/'])
      expect(code, err).toBe(0)
      expect(out).toContain('far')
    }
    await call()
    // What agents hold is saved a moment after it came.
    await later(1_000)
    // It accepts connections and never answers: worse than one that is gone.
    process.kill(control, 'SIGSTOP')
    try {
      const programs = ['agent-node-1', 'agent-node-2']
      const before = programs.map(pidOf)
      for (const pid of before) process.kill(pid!, 'SIGKILL')
      await eventually('other processes', () =>
        programs.every((one, i) => pidOf(one) !== undefined && pidOf(one) !== before[i]),
      )
      const began = performance.now()
      await call()
      // The start of an agent, and nothing that waits for control.
      expect(performance.now() - began).toBeLessThan(8_000)
      for (const program of programs) {
        const lines = world.logs(program).map(({ msg }) => msg)
        expect(lines.filter((line) => line === 'certificates of the agent before this one are taken up').length).toBe(
          // Once for each start but the first.
          lines.filter((line) => line === 'agent started').length - 1,
        )
      }
      // Keys are nowhere in what agents write.
      const { out } = await run(['grep', '-rlE', 'PRIVATE KEY', world.sandbox.layout.home, '--exclude-dir=control'])
      expect(out).toBe('')
    } finally {
      process.kill(control, 'SIGCONT')
    }
    await call()
  }, 60_000)
})
