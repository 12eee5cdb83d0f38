// Long life: a waypoint that is stopped, or whose configuration changes, under load loses not one request.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { Load } from '../world/load.ts'
import { pause, Stage, until } from '../world/waypoint-process.ts'

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

// A second chance would hide what is lost now and then.
describe('a waypoint under load', { retry: 0 }, () => {
  it('is stopped by SIGTERM while another takes over, and no request is lost', async () => {
    const first = await stage.start([], 2)
    const second = await stage.start([], 3)
    await Promise.all([first.ready(), second.ready()])
    const load = new Load(stage, { connections: 24, sessions: 6, hosts: [2, 3] })
    await until(() => load.answered > 500)
    first.child.kill('SIGTERM')
    expect(await first.exited).toBe(0)
    const { answered } = load
    await until(() => load.answered > answered + 300)
    await load.stop()
    expect(load.lost).toEqual([])
    expect([...load.statuses.keys()]).toEqual([200])
    expect(load.reopened).toBeGreaterThan(0)
  })

  it('answers the requests in flight, and ends idle connections without cutting one that is just used', async () => {
    const program = await stage.start([], 2)
    await program.ready()
    const load = new Load(stage, { connections: 4, sessions: 4, hosts: [2] })
    await until(() => load.answered > 50)
    const started = Date.now()
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    const took = Date.now() - started
    await load.stop().catch(() => {})
    expect(load.lost).toEqual([])
    expect(took).toBeLessThan(15_000)
  })

  it('takes new policies all the while', async () => {
    const program = await stage.start([], 2)
    await program.ready()
    const load = new Load(stage, { connections: 16, sessions: 4, hosts: [2] })
    for (let round = 0; round < 10; round++) {
      stage.world.setPolicy({ name: `policy-${round}`, rules: [{ clauses: [] }], action: 'ALLOW' })
      stage.publish()
      await pause(100)
    }
    await load.stop()
    expect(load.lost).toEqual([])
    expect([...load.statuses.keys()]).toEqual([200])
  })
})
