// An agent is replaced on either side of the waypoint: it drains its tunnels, and some time later cuts what still runs over them.
// Whoever keeps connections alive must be off them by then, without a request lost.
import { Agent, request as httpRequest, type Server } from 'node:http'
import { connect, type ClientHttp2Session } from 'node:http2'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from './testing-apps.ts'
import { World, type Endpoint } from './testing.ts'

let world: World
let endpoint: Endpoint
const servers: Server[] = []
const agents: Agent[] = []

beforeEach(async () => {
  world = await World.open()
  world.setService()
  const server = app(echo('app'))
  servers.push(server)
  endpoint = await world.endpoint(10, await listenOn(server, world.address(10)))
})

afterEach(async () => {
  for (const agent of agents.splice(0)) agent.destroy()
  await world.close()
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

/** A client that keeps its connection; says whether the answer asked it not to. */
function client(port: number): () => Promise<{ status: number; closes: boolean }> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  agents.push(agent)
  return () =>
    new Promise((resolve, reject) => {
      httpRequest({ host: '127.0.0.1', port, agent, headers: { host: 'api' } }, (response) => {
        response.resume()
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, closes: response.headers['connection'] === 'close' }),
        )
      })
        .on('error', reject)
        .end()
    })
}

const KEPT = { status: 200, closes: false }

describe("when the endpoint's agent leaves", () => {
  it('the next request goes over a new tunnel, and the old one is given up', async () => {
    const call = client(await world.dial())
    expect([await call(), await call()]).toEqual([KEPT, KEPT])
    expect(endpoint.seen).toHaveLength(1)
    endpoint.drain()
    await world.until(() => world.waypoint.tunnels.pool.sessions === 0)
    expect([await call(), await call()]).toEqual([KEPT, KEPT])
    expect(endpoint.seen).toHaveLength(2)
  })

  it('a request that runs ends where it began', async () => {
    const held = Promise.withResolvers<void>()
    const slow = app((request, response) => void held.promise.then(() => echo('slow')(request, response)))
    servers.push(slow)
    await endpoint.stop()
    world.state.removeWorkload(endpoint.workload.uid)
    const late = await world.endpoint(11, await listenOn(slow, world.address(11)))
    const call = client(await world.dial())
    const running = call()
    await world.until(() => late.seen.length === 1)
    late.drain()
    await new Promise((resolve) => setTimeout(resolve, 50))
    held.resolve()
    expect(await running).toEqual(KEPT)
    await world.until(() => world.waypoint.tunnels.pool.sessions === 0)
  })
})

describe("when the client's agent leaves", () => {
  it('a client that comes often is asked to connect again, with its next answer', async () => {
    const call = client(await world.dial())
    expect(await call()).toEqual(KEPT)
    world.clients[0]!.drain()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await call()).toEqual({ status: 200, closes: true })
    await world.until(() => world.clients[0]!.sessions === 0)
    expect(await call()).toEqual(KEPT)
  })

  it('one that is idle is closed after a while', async () => {
    const call = client(await world.dial())
    expect(await call()).toEqual(KEPT)
    world.clients[0]!.drain()
    await world.until(() => world.clients[0]!.sessions === 0)
    expect(await call()).toEqual(KEPT)
  })

  it('HTTP/2 is told to open no more streams', async () => {
    const port = await world.dial()
    const session: ClientHttp2Session = connect(`http://127.0.0.1:${port}`)
    const told = new Promise((resolve) => session.once('goaway', resolve))
    const get = () =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ':authority': 'api' })
        stream.on('response', (head) => resolve(head[':status']))
        stream.on('error', reject)
        stream.resume()
      })
    expect(await get()).toBe(200)
    world.clients[0]!.drain()
    await told
    await world.until(() => world.clients[0]!.sessions === 0)
    session.destroy()
  })
})
