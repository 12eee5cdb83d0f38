// What a filter may rely on, shown with filters made for it in a real waypoint: the order of hooks, waiting, bodies as they
// stream and whole, limits, routes of their own.
import type { Server } from 'node:http'
import { afterEach, describe, expect, it } from 'vitest'
import type { Listener } from '../../io/connection.ts'
import type { Run } from '../run.ts'
import { app, call, echo, listenOn } from '../testing-apps.ts'
import { SERVICE, World } from '../testing.ts'
import { compileChain, type Filter, type RouteFilter } from './filter.ts'

let world: World
let listener: Listener
let server: Server

async function open(filters: readonly Filter[], routeFilters: readonly RouteFilter[] = []): Promise<number> {
  world = await World.open(false, { filters, routeFilters })
  world.setService()
  listener = await world.waypoint.listenHttp({ host: '127.0.0.1', port: 0 }, { service: SERVICE, port: 80 })
  server = app(echo('app'))
  await world.endpoint(10, await listenOn(server, world.address(10)), {}, { plain: true })
  return listener.address.port
}

afterEach(async () => {
  await listener.stop()
  await world.close()
  server.close()
  server.closeAllConnections()
})

const bodyOf = (answer: { body: string }) => (JSON.parse(answer.body) as { body: string }).body

describe('filters', () => {
  it('see a request in order and its answer in reverse, and complete once', async () => {
    const seen: string[] = []
    const named = (name: string): Filter => ({
      name,
      onRequest: () => void seen.push(`${name} request`),
      onRoute: () => void seen.push(`${name} route`),
      onEndpoint: () => void seen.push(`${name} endpoint`),
      onResponse: () => void seen.push(`${name} response`),
      onComplete: () => void seen.push(`${name} complete`),
    })
    const port = await open([named('a'), named('b')])
    expect((await call(port)).status).toBe(200)
    await world.until(() => seen.length === 10)
    expect(seen).toEqual([
      'a request',
      'b request',
      'a route',
      'b route',
      'a endpoint',
      'b endpoint',
      'b response',
      'a response',
      'b complete',
      'a complete',
    ])
  })

  it('may hold a request: nothing of its body is lost meanwhile', async () => {
    const held: Run[] = []
    const wait: Filter = { name: 'wait', onRequest: (run) => (held.push(run), 'wait') }
    const port = await open([wait])
    const body = 'x'.repeat(300_000)
    const answer = call(port, { method: 'POST', body })
    const empty = call(port)
    await world.until(() => held.length === 2)
    for (const run of held) run.proceed()
    expect(bodyOf(await answer)).toBe(body)
    expect((await empty).status).toBe(200)
  })

  it('see pieces of a body as they come, and may end the request by one', async () => {
    const filter: Filter = {
      name: 'no secrets',
      onRequestData: (_run, bytes, start, end) =>
        Buffer.from(bytes.subarray(start, end)).includes('secret')
          ? { status: 403, body: 'no', flags: '-', details: 'test' }
          : undefined,
    }
    const port = await open([filter])
    expect(bodyOf(await call(port, { method: 'POST', body: 'fine' }))).toBe('fine')
    expect(await call(port, { method: 'POST', body: 'a secret' })).toMatchObject({ status: 403, body: 'no' })
  })

  it('get a body whole up to the limit they state; a longer one is answered 413', async () => {
    const bodies: number[] = []
    const whole: Filter = {
      name: 'whole',
      bodyLimit: 100_000,
      onRequestBody: (_run, body) => void bodies.push(body.length),
    }
    const port = await open([whole])
    const fits = 'y'.repeat(100_000)
    expect(bodyOf(await call(port, { method: 'POST', body: fits }))).toBe(fits)
    expect((await call(port)).status).toBe(200)
    const refused = await call(port, { method: 'POST', body: `${fits}z`, headers: { connection: 'close' } })
    expect(refused).toMatchObject({ status: 413, body: 'Payload Too Large' })
    expect(bodies).toEqual([100_000])
    const line = (await world.log()).find((one) => one['response_code'] === 413)
    expect(line).toMatchObject({ response_flags: '-', response_code_details: 'request_payload_too_large' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect([...world.waypoint.clusters.all()].map((cluster) => cluster.active)).toEqual([0])
  })

  it('must state a limit to get whole bodies', () => {
    expect(() => compileChain([{ name: 'greedy', onRequestBody: () => undefined }])).toThrow(/'greedy'.*limit/)
  })

  it('of a route see only its requests', async () => {
    const mark: RouteFilter = (rule) =>
      rule.rule.name === 'marked'
        ? { name: 'mark', onRoute: (run) => void run.head.headers.push('x-mark', '1') }
        : undefined
    const port = await open([], [mark])
    world.setRoute([
      { name: 'marked', matches: [match('/marked')] },
      { name: 'other', matches: [] },
    ])
    expect((await call(port, { path: '/marked' })).body).toContain('x-mark')
    expect((await call(port, { path: '/other' })).body).not.toContain('x-mark')
  })
})

function match(prefix: string) {
  return {
    name: '',
    port: 0,
    path: { type: 'prefix' as const, value: prefix, ignoreCase: false },
    sourceNamespace: '',
    sourceLabels: {},
    headers: [],
    withoutHeaders: [],
    queryParams: [],
  }
}
