// Thousands of HBONE connections that say nothing once they are open: what each costs stays within a bound, requests are served
// meanwhile, and not one is left when they go. `npm run soak` does it with ten thousand. Must not live here:
// connections beyond the limit (overload.test.ts).
import type { ClientHttp2Session } from 'node:http2'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { pause, Stage, tunnel, until } from '../world/waypoint-process.ts'

const COUNT = 3_000
/** Opening them may take so long; a slow machine then has fewer to judge by, never a red test. */
const BUDGET_MS = 20_000
/** Resident, TLS included; measured 50 KiB. */
const BYTES_EACH = 80 << 10

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

/** Opens up to COUNT sessions within the budget. */
async function openAll(): Promise<ClientHttp2Session[]> {
  const sessions: ClientHttp2Session[] = []
  const end = Date.now() + BUDGET_MS
  while (sessions.length < COUNT && Date.now() < end)
    sessions.push(...(await Promise.all(Array.from({ length: 50 }, () => stage.session()))))
  return sessions
}

describe('idle connections', () => {
  it('in thousands cost little each, and leave nothing', async () => {
    const program = await stage.start()
    await program.ready()
    const first = await stage.session()
    const ask = async (): Promise<string> => {
      const stream = await tunnel(first)
      let text = ''
      stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
      stream.on('end', () => stream.end())
      stream.write('GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n')
      await new Promise<void>((resolve) => stream.once('close', () => resolve()))
      return text
    }
    // What is made once is not the connections'.
    expect(await ask()).toMatch(/^HTTP\/1\.1 200 /)
    const before = program.rss()
    const sessions = await openAll()
    expect(sessions.length).toBeGreaterThan(500)
    expect(await program.metric('ambit_waypoint_connections')).toBe(sessions.length + 1)
    await pause(500)
    expect((program.rss() - before) / sessions.length).toBeLessThan(BYTES_EACH)
    expect(await ask()).toMatch(/^HTTP\/1\.1 200 /)
    for (const session of sessions) session.destroy()
    first.destroy()
    await until(async () => (await program.metric('ambit_waypoint_connections')) === 0)
  })
})
