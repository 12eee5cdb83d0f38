// Many cores: `ambit waypoint --workers N` as people run it. Workers share the port; one that dies is replaced and nobody waits
// for it; all are replaced under load and not one request is lost.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { Load } from '../world/load.ts'
import { processTree, Stage, tunnel, until, type WaypointProcess } from '../world/waypoint-process.ts'

let stage: Stage

beforeEach(async () => {
  stage = await Stage.open()
  const server = app(echo('app'))
  await stage.world.endpoint(10, await listenOn(server, stage.world.address(10)))
  stage.world.onClose(() => {
    server.close()
    server.closeAllConnections()
  })
  stage.publish()
})

afterEach(async () => {
  await stage.close()
})

const workersOf = (program: WaypointProcess): number[] => processTree(program.pid).slice(1)

// A second chance would hide what is lost now and then.
describe('a waypoint of several workers', { retry: 0 }, () => {
  it('shares the port, and shows itself as one: metrics, readiness, dump, log', async () => {
    const program = await stage.start(['--workers', '2'])
    await program.ready()
    expect(workersOf(program)).toHaveLength(2)
    const load = new Load(stage, { connections: 32, sessions: 16, hosts: [2] })
    await until(() => load.answered > 1_000)
    await load.stop()
    expect(load.lost).toEqual([])
    expect(await program.metric('istio_requests_total', 'response_code="200"')).toBe(load.answered)
    expect(await program.metric('ambit_waypoint_workers', 'serving')).toBe(2)
    const dump = JSON.parse((await program.get('admin', '/config_dump')).body) as {
      workers: { ready: boolean }[]
      dumps: Record<string, { services: unknown[] }>
    }
    expect(dump.workers.map(({ ready }) => ready)).toEqual([true, true])
    expect(dump.dumps['1']?.services).toHaveLength(2)
    expect((await program.get('admin', '/logging?level=debug', 'POST')).status).toBe(200)
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    // Every request has its own line, whole, whoever wrote it.
    expect(program.accessLines()).toHaveLength(load.answered)
    expect(program.broken).toEqual([])
    const served = new Set(program.said('worker started').map((line) => line['worker']))
    expect(served).toEqual(new Set([0, 1]))
  })

  it('replaces a worker that dies: connections go on at once, and the counters do not fall', async () => {
    const program = await stage.start(['--workers', '2'])
    await program.ready()
    const load = new Load(stage, { connections: 16, sessions: 8, hosts: [2] })
    await until(() => load.answered > 300)
    const before = await program.metric('istio_requests_total')
    const [victim = 0] = workersOf(program)
    process.kill(victim, 'SIGKILL')
    const { answered } = load
    await until(() => load.answered > answered + 300)
    await program.ready()
    await load.stop()
    expect(await program.metric('istio_requests_total')).toBeGreaterThan(before)
    expect(await program.metric('ambit_waypoint_worker_restarts_total')).toBe(1)
    expect(program.said('a worker died')).toHaveLength(1)
    // What was in flight in the dead worker is lost, and nothing else.
    expect(load.lost.length).toBeLessThanOrEqual(16)
    expect(workersOf(program)).toHaveLength(2)
  })

  it('lets the others accept for one that stays away', async () => {
    const program = await stage.start(['--workers', '2'])
    await program.ready()
    const [victim = 0] = workersOf(program)
    process.kill(victim, 'SIGKILL')
    await until(() => program.said('a worker died').length > 0)
    // Some of these hash to the socket whose worker is only just starting.
    const started = Date.now()
    const sessions = await Promise.all(Array.from({ length: 20 }, () => stage.session()))
    expect(Date.now() - started).toBeLessThan(5_000)
    const stream = await tunnel(sessions[0] as (typeof sessions)[0])
    stream.close()
    for (const session of sessions) session.destroy()
  })

  it('is reloaded by SIGHUP under load without losing a request', async () => {
    const program = await stage.start(['--workers', '2'])
    await program.ready()
    const old = workersOf(program)
    const load = new Load(stage, { connections: 24, sessions: 8, hosts: [2] })
    await until(() => load.answered > 300)
    program.child.kill('SIGHUP')
    await until(() => program.said('the workers are replaced').length > 0)
    const { answered } = load
    await until(() => load.answered > answered + 300)
    expect(workersOf(program).filter((pid) => old.includes(pid))).toEqual([])
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    await load.stop().catch(() => {})
    expect(load.lost).toEqual([])
    expect([...load.statuses.keys()]).toEqual([200])
    expect(load.reopened).toBeGreaterThan(0)
  })

  it('ends with its reason where it cannot start', async () => {
    const first = await stage.start(['--workers', '2'])
    await first.ready()
    const program = await stage.start(['--root-cert', '/nowhere', '--workers', '2'], 3)
    expect(await program.exited).toBe(1)
    expect(program.said('no worker could start')).toHaveLength(1)
    const taken = await stage.start(['--workers', '1'], 2)
    expect(await taken.exited).toBe(1)
  })

  it('ends its workers with it, however it ends', async () => {
    const program = await stage.start(['--workers', '2'])
    await program.ready()
    const workers = workersOf(program)
    program.child.kill('SIGKILL')
    await program.exited
    await until(() => workers.every((pid) => !alive(pid)))
  })
})

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
