// Too much of what is allowed: connections, requests, memory, descriptors. What is over the limit is refused and counted, what is
// under it is served, and afterwards all is as before. Must not live here: clients that break rules (hostile.test.ts).
import { readFileSync } from 'node:fs'
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { pause, Stage, tunnel, until, type WaypointProcess } from '../world/waypoint-process.ts'

let stage: Stage
let release: (() => void)[] = []

beforeEach(async () => {
  stage = await Stage.open()
  release = []
  const server = app((request, response) => {
    if (request.url === '/wait') release.push(() => response.end('late'))
    else response.end('now')
  })
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

/** One request on a tunnel of its own; the answer's text. */
async function ask(
  session: ClientHttp2Session,
  path: string,
): Promise<{ stream: ClientHttp2Stream; answer: Promise<string> }> {
  const stream = await tunnel(session)
  let text = ''
  const answer = new Promise<string>((resolve) => {
    stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    stream.on('end', () => stream.end())
    stream.on('close', () => resolve(text))
  })
  stream.write(`GET ${path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n`)
  return { stream, answer }
}

/** CPU seconds used so far, told by the kernel: the program may have no descriptor left to tell it. */
function cpu(program: WaypointProcess): number {
  const fields = readFileSync(`/proc/${program.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

describe('a waypoint that has too much', () => {
  it('answers 503 OM beyond its requests, and serves again once there is room', async () => {
    const program = await stage.start(['--max-requests', '3'])
    await program.ready()
    const session = await stage.session()
    const waiting = await Promise.all([1, 2, 3].map(() => ask(session, '/wait')))
    await until(() => release.length === 3)
    const refused = await (await ask(session, '/')).answer
    expect(refused).toMatch(/^HTTP\/1.1 503 [\s\S]*envoy overloaded$/)
    for (const let_go of release) let_go()
    for (const { answer } of waiting) expect(await answer).toMatch(/^HTTP\/1.1 200 [\s\S]*late/)
    expect(await (await ask(session, '/')).answer).toMatch(/^HTTP\/1.1 200 /)
    await until(() => program.accessLines().length === 5)
    expect(program.accessLines().filter((line) => line.response_flags === 'OM')).toMatchObject([
      { response_code: 503, response_code_details: 'overload' },
    ])
    expect(await program.metric('ambit_waypoint_requests_shed_total', 'requests')).toBe(1)
    session.destroy()
  })

  it('refuses connections beyond its limit, and takes new ones when others leave', async () => {
    const program = await stage.start(['--max-connections', '5'])
    await program.ready()
    const sessions = await Promise.all([1, 2, 3, 4, 5].map(() => stage.session()))
    await expect(stage.session()).rejects.toThrow()
    expect(await program.metric('ambit_waypoint_connections_refused_total')).toBeGreaterThan(0)
    for (const session of sessions) session.destroy()
    await until(async () => (await program.metric('ambit_waypoint_connections')) === 0)
    const again = await stage.session()
    expect(await (await ask(again, '/')).answer).toMatch(/^HTTP\/1.1 200 /)
    again.destroy()
  })

  it('sheds requests and accepts nothing above its memory mark', async () => {
    // Below what any Node process has: overloaded from the first look on.
    const program = await stage.start(['--max-memory', '8Mi'])
    await until(async () => (await program.metric('ambit_waypoint_overloaded')) === 1)
    const outcome = await Promise.race([
      stage.session().then(
        () => 'accepted',
        () => 'refused',
      ),
      pause(1_000).then(() => 'waits'),
    ])
    expect(outcome).toBe('waits')
  })

  it('goes on once the memory is there again, though many connections took it', async () => {
    const plain = await stage.start(['--max-memory', '0'], 3)
    await plain.ready()
    const program = await stage.start(['--max-memory', String(plain.rss() + (60 << 20))])
    await program.ready()
    const opened: ClientHttp2Session[] = []
    while ((await program.metric('ambit_waypoint_overloaded')) === 0 && opened.length < 6_000) {
      const more = Array.from({ length: 50 }, () =>
        Promise.race([stage.session().catch(() => undefined), pause(500).then(() => undefined)]),
      )
      for (const session of await Promise.all(more)) if (session) opened.push(session)
    }
    expect(opened.length).toBeGreaterThan(500)
    expect(await program.metric('ambit_waypoint_overloaded')).toBe(1)
    for (const session of opened) session.destroy()
    await until(async () => (await program.metric('ambit_waypoint_overloaded')) === 0)
    const session = await stage.session()
    expect(await (await ask(session, '/')).answer).toMatch(/^HTTP\/1.1 200 /)
    session.destroy()
  })

  it('that is out of descriptors neither dies nor spins, and goes on when there are some', async () => {
    const program = await stage.start([], 2, ['prlimit', '--nofile=120:120'])
    await program.ready()
    const opened: ClientHttp2Session[] = []
    for (let i = 0; i < 150; i++) {
      const session = await Promise.race([stage.session().catch(() => undefined), pause(500).then(() => undefined)])
      if (!session) break
      opened.push(session)
    }
    expect(opened.length).toBeLessThan(150)
    const used = cpu(program)
    await pause(2_000)
    expect(program.child.exitCode).toBe(null)
    expect(cpu(program) - used).toBeLessThan(0.6)
    for (const session of opened) session.destroy()
    await until(async () => (await program.metric('ambit_waypoint_connections')) < 5)
    const session = await stage.session()
    expect(await (await ask(session, '/')).answer).toMatch(/^HTTP\/1.1 200 /)
    expect(await program.metric('ambit_waypoint_connections_refused_total')).toBeGreaterThan(0)
    session.destroy()
  })
})
