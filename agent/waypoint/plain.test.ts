// A Gateway's plaintext HTTP listener, from front to back: who the client is, what it may say, and apps that have no tunnel.
import { connect } from 'node:net'
import type { Server } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Listener } from '../io/connection.ts'
import { parsePlainListen } from './listen/plain.ts'
import { app, call, echo, listenOn } from './testing-apps.ts'
import { SERVICE, World } from './testing.ts'

let world: World
let listener: Listener
const servers: Server[] = []

beforeEach(async () => {
  world = await World.open()
  world.setService()
  listener = await world.waypoint.listenHttp({ host: '127.0.0.1', port: 0 }, { service: SERVICE, port: 80 })
  world.onClose(() => listener.stop())
})

afterEach(async () => {
  await world.close()
  for (const server of servers.splice(0)) server.closeAllConnections()
})

async function serve(host: number, more: { plain?: boolean } = {}): Promise<Server> {
  const server = app(echo(`app-${host}`))
  servers.push(server)
  const port = await listenOn(server, world.address(host))
  world.onClose(() => void server.close())
  await world.endpoint(host, port, {}, more)
  return server
}

/** Sends bytes and gives what came back until the end. */
function raw(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let out = ''
    const socket = connect(listener.address.port, '127.0.0.1', () => socket.end(bytes))
    socket.on('data', (chunk) => (out += chunk.toString('latin1')))
    socket.on('error', reject)
    socket.on('close', () => resolve(out))
  })
}

describe('a plaintext HTTP listener', () => {
  it('serves requests for its service, from a client without identity', async () => {
    await serve(10)
    const answer = await call(listener.address.port, { path: '/x', headers: { 'x-envoy-retry-on': '5xx' } })
    expect(answer).toMatchObject({ status: 200, headers: { 'x-app': 'app-10', server: 'istio-envoy' } })
    expect(answer.body).not.toContain('x-envoy-retry-on')
    const [line] = await world.log()
    expect(line).toMatchObject({ response_code: 200, source_principal: null, source_workload: null })
    expect(await world.metrics.text()).toMatch(
      /istio_requests_total\{[^}]*source_principal="unknown"[^}]*connection_security_policy="none"\} 1/,
    )
  })

  it('is refused by a policy that asks for a principal, also where its address is a workload of the mesh', async () => {
    await serve(10)
    world.setPolicy({ rules: [{ clauses: [{ matches: [{ principals: [{ type: 'presence' }] }] }] }] })
    expect(await call(listener.address.port)).toMatchObject({ status: 403, body: 'RBAC: access denied' })
    world.setPolicy({ rules: [{ clauses: [{ matches: [{ methods: [{ type: 'exact', value: 'GET' }] }] }] }] })
    expect((await call(listener.address.port)).status).toBe(200)
    expect((await call(listener.address.port, { method: 'DELETE' })).status).toBe(403)
  })

  it('reaches a workload without a tunnel in plaintext, over one kept connection for all clients', async () => {
    const server = await serve(10, { plain: true })
    let connections = 0
    server.on('connection', () => connections++)
    for (let i = 0; i < 4; i++) expect((await call(listener.address.port)).status).toBe(200)
    expect(connections).toBe(1)
  })

  it('answers 404 for a service that is not known', async () => {
    world.state.removeService(SERVICE)
    expect((await call(listener.address.port)).status).toBe(404)
    expect((await world.log())[0]).toMatchObject({ response_flags: 'NR', response_code_details: 'route_not_found' })
  })

  it('relays nothing that is no HTTP', async () => {
    await serve(10)
    expect(await raw('SSH-2.0-OpenSSH_9.2\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
  })
})

describe('the flag', () => {
  it('names an address, a service and its port', () => {
    expect(parsePlainListen('[::]:8080=shop/api.shop.svc.cluster.local:80')).toEqual({
      listen: '[::]:8080',
      service: 'shop/api.shop.svc.cluster.local',
      port: 80,
    })
  })

  it.each(['', '127.0.0.1:80', '127.0.0.1:80=api:80', '127.0.0.1:80=shop/api', '=shop/api:80', ':80=a/b:0'])(
    '%j is refused',
    (text) => {
      expect(() => parsePlainListen(text)).toThrow(/is no HTTP listener/)
    },
  )
})
