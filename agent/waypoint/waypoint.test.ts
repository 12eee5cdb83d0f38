// The waypoint from front to back, over real TLS on loopback: routes, policies, local replies, what the app and the client see.
import type { Server } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, call, echo, listenOn } from './testing-apps.ts'
import { SERVICE, SOURCE, to, VIP, World } from './testing.ts'

let world: World
const servers: Server[] = []

beforeEach(async () => {
  world = await World.open()
  world.setService()
})

afterEach(async () => {
  await world.close()
  for (const server of servers.splice(0)) server.closeAllConnections()
})

async function serve(host: number, listener = echo(`app-${host}`), labels: Record<string, string> = {}) {
  const server = app(listener)
  servers.push(server)
  const port = await listenOn(server, world.address(host))
  world.onClose(() => void server.close())
  return world.endpoint(host, port, labels)
}

interface Echo {
  app: string
  method: string
  url: string
  rawHeaders: string[]
  trailers: Record<string, string>
  body: string
}

const parsed = (body: string) => JSON.parse(body) as Echo

/** Values of a header as the app saw it. */
function fieldOf(seen: Echo, name: string): string[] {
  return seen.rawHeaders.filter((_text, i) => i % 2 === 1 && seen.rawHeaders[i - 1]?.toLowerCase() === name)
}

describe('forwarding', () => {
  it('carries a request to the app and its answer back, with the waypoint named to the endpoint and the client named in forwarded', async () => {
    const endpoint = await serve(10)
    const port = await world.dial()
    const answer = await call(port, { method: 'POST', path: '/p?q=1', body: 'hello', headers: { 'x-mine': 'yes' } })
    expect(answer.status).toBe(200)
    const seen = parsed(answer.body)
    expect(seen).toMatchObject({ app: 'app-10', method: 'POST', url: '/p?q=1', body: 'hello' })
    expect(fieldOf(seen, 'x-mine')).toEqual(['yes'])
    expect(fieldOf(seen, 'host')).toEqual(['api'])
    expect(endpoint.seen[0]?.peer).toBe('spiffe://cluster.local/ns/shop/sa/waypoint')
    expect(endpoint.seen[0]?.authority).toContain(`${world.address(10)}:`)
    expect(endpoint.seen[0]?.forwarded).toContain(`for="${world.address(1)}:`)
    expect(answer.headers['server']).toBe('istio-envoy')
    expect(answer.headers['x-envoy-upstream-service-time']).toMatch(/^[0-9]+$/)
  })

  it('keeps connections to the app for later requests of the same client', async () => {
    let connections = 0
    const server = app(echo('one'))
    server.on('connection', () => connections++)
    servers.push(server)
    await world.endpoint(10, await listenOn(server, world.address(10)))
    const port = await world.dial()
    for (let i = 0; i < 5; i++) expect((await call(port)).status).toBe(200)
    expect(connections).toBe(1)
  })

  it('takes away what a client may not say, and gives every request an id', async () => {
    await serve(10)
    const port = await world.dial()
    const answer = await call(port, {
      headers: {
        'x-envoy-upstream-rq-timeout-ms': '1',
        'x-envoy-retry-on': '5xx',
        'x-forwarded-client-cert': 'URI=spiffe://cluster.local/ns/x/sa/admin',
        'x-envoy-attempt-count': '9',
        'x-forwarded-for': '1.2.3.4',
        connection: 'keep-alive, x-hop',
        'x-hop': '1',
        'keep-alive': '5',
      },
    })
    const seen = parsed(answer.body)
    for (const name of [
      'x-envoy-upstream-rq-timeout-ms',
      'x-envoy-retry-on',
      'x-forwarded-client-cert',
      'x-hop',
      'keep-alive',
    ]) {
      expect(fieldOf(seen, name), name).toEqual([])
    }
    expect(fieldOf(seen, 'x-envoy-attempt-count')).toEqual(['1'])
    // use_remote_address=false: the waypoint does not append.
    expect(fieldOf(seen, 'x-forwarded-for')).toEqual(['1.2.3.4'])
    expect(fieldOf(seen, 'x-request-id')[0]).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('normalises the path before it is matched, and sends on what it matched', async () => {
    await serve(10)
    world.setPolicy({
      action: 'DENY',
      rules: [{ clauses: [{ matches: [{ paths: [{ type: 'prefix', value: '/admin' }] }] }] }],
    })
    const port = await world.dial()
    expect((await call(port, { path: '/public/../admin/x' })).status).toBe(403)
    expect((await call(port, { path: '/%61dmin' })).status).toBe(403)
    expect(parsed((await call(port, { path: '/a/./b/%41?x=%41' })).body).url).toBe('/a/b/A?x=%41')
    expect((await call(port, { path: '/a%00b' })).status).toBe(400)
  })

  it('streams a large body both ways, unchanged', async () => {
    await serve(10, (request, response) => {
      response.writeHead(200)
      request.pipe(response)
    })
    const port = await world.dial()
    const body = Buffer.alloc(8 << 20)
    for (let i = 0; i < body.length; i += 4) body.writeUInt32LE((i * 2654435761) >>> 0, i)
    const answer = await call(port, { method: 'PUT', body })
    expect(Buffer.from(answer.body, 'latin1').equals(body)).toBe(true)
  })

  it('answers HEAD with the length and no body', async () => {
    await serve(10, (_request, response) => void response.setHeader('content-length', '5').end())
    const answer = await call(await world.dial(), { method: 'HEAD' })
    expect(answer).toMatchObject({ status: 200, body: '' })
    expect(answer.headers['content-length']).toBe('5')
  })

  it('forwards methods that node:http cannot', async () => {
    const { createServer, connect } = await import('node:net')
    let head = ''
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.on('data', (chunk) => {
        head += chunk.toString('latin1')
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')
      })
    })
    await world.endpoint(10, await listenOn(server, world.address(10)))
    world.onClose(() => void server.close())
    const socket = connect({ host: '127.0.0.1', port: await world.dial() })
    socket.write('FROBNICATE /x HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n')
    const answer = await new Promise<string>((resolve) => {
      let text = ''
      socket.on('data', (chunk) => (text += chunk.toString('latin1')))
      socket.on('end', () => resolve(text))
    })
    socket.destroy()
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(head).toMatch(/^FROBNICATE \/x HTTP\/1\.1\r\n/)
  })

  it('never ends a truncated answer cleanly', async () => {
    await serve(10, (_request, response) => {
      response.write('part of it')
      setTimeout(() => response.destroy(), 30)
    })
    await expect(call(await world.dial())).rejects.toThrow(/aborted|truncated|reset|hang up/i)
    await world.until(() => world.waypoint.pipeline.active === 0)
    const [entry] = await world.log()
    expect(entry).toMatchObject({ response_code: 200, response_flags: 'UC' })
  })
})

describe('routes', () => {
  it('splits by weight over subsets', async () => {
    await serve(10, echo('v1'), { version: 'v1' })
    await serve(11, echo('v2'), { version: 'v2' })
    world.setUpstream({
      subsets: [
        { name: 'v1', labels: { version: 'v1' }, source: SOURCE },
        { name: 'v2', labels: { version: 'v2' }, source: SOURCE },
      ],
    })
    world.setRoute([{ action: { type: 'forward', destinations: [to('v1', 80), to('v2', 20)] } }])
    const port = await world.dial()
    const counts: Record<string, number> = { v1: 0, v2: 0 }
    for (let i = 0; i < 400; i++) {
      const { app: name } = parsed((await call(port)).body)
      counts[name] = (counts[name] ?? 0) + 1
    }
    // 80 of 400 expected for v2, σ = 8.
    expect(counts['v2']).toBeGreaterThan(40)
    expect(counts['v2']).toBeLessThan(120)
  })

  it('changes with the next request when the route changes', async () => {
    await serve(10, echo('v1'), { version: 'v1' })
    await serve(11, echo('v2'), { version: 'v2' })
    const subsets = ['v1', 'v2'].map((name) => ({ name, labels: { version: name }, source: SOURCE }))
    world.setUpstream({ subsets })
    const port = await world.dial()
    for (const name of ['v1', 'v2', 'v1']) {
      world.setRoute([{ action: { type: 'forward', destinations: [to(name)] } }])
      for (let i = 0; i < 5; i++) expect(parsed((await call(port)).body).app).toBe(name)
    }
  })

  it('matches in order and answers 404 where nothing matches', async () => {
    await serve(10)
    world.setRoute([
      {
        name: 'only-a',
        matches: [
          {
            name: 'm',
            path: { type: 'prefix', value: '/a', ignoreCase: false },
            headers: [],
            withoutHeaders: [],
            queryParams: [],
            port: 0,
            sourceNamespace: '',
            sourceLabels: {},
          },
        ],
      },
    ])
    const port = await world.dial()
    expect((await call(port, { path: '/abc' })).status).toBe(200)
    expect(await call(port, { path: '/b' })).toMatchObject({ status: 404, body: '' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    const log = await world.log()
    expect(log[0]).toMatchObject({ route_name: 'only-a.m', response_flags: '-' })
    expect(log[1]).toMatchObject({ response_code: 404, response_flags: 'NR', response_code_details: 'route_not_found' })
  })

  it('rewrites, and applies header operations on both ways', async () => {
    await serve(10)
    world.setRoute([
      {
        matches: [
          {
            name: '',
            path: { type: 'prefix', value: '/old', ignoreCase: false },
            headers: [],
            withoutHeaders: [],
            queryParams: [],
            port: 0,
            sourceNamespace: '',
            sourceLabels: {},
          },
        ],
        rewrite: { uri: '/new', authority: 'other.example' },
        requestHeaders: { set: { 'X-Set': 'set' }, add: { 'X-Add': 'add' }, remove: ['x-gone'] },
        responseHeaders: { set: { 'X-Back': 'back' }, add: {}, remove: ['x-app'] },
      },
    ])
    const answer = await call(await world.dial(), {
      path: '/old/x?y',
      headers: { 'x-gone': '1', 'x-set': 'client', 'x-add': 'client' },
    })
    const seen = parsed(answer.body)
    expect(seen.url).toBe('/new/x?y')
    expect(fieldOf(seen, 'host')).toEqual(['other.example'])
    expect([fieldOf(seen, 'x-gone'), fieldOf(seen, 'x-set'), fieldOf(seen, 'x-add')]).toEqual([
      [],
      ['set'],
      ['client', 'add'],
    ])
    expect(answer.headers['x-back']).toBe('back')
    expect(answer.headers['x-app']).toBeUndefined()
  })

  it('redirects and answers directly', async () => {
    world.setRoute([
      { action: { type: 'redirect', redirect: { status: 302, authority: 'elsewhere', path: '/there' } } },
    ])
    const port = await world.dial()
    const redirected = await call(port, { path: '/here?q' })
    expect(redirected.status).toBe(302)
    expect(redirected.headers['location']).toMatch(/^http:\/\/elsewhere\/there/)
    world.setRoute([{ action: { type: 'respond', status: 418, body: 'short and stout' } }])
    expect(await call(port)).toMatchObject({ status: 418, body: 'short and stout' })
  })

  it('answers 500 for a rule with a feature that is not there, and never skips it', async () => {
    await serve(10)
    world.setRoute([{ unsupported: ['mirror'] }])
    expect(await call(await world.dial())).toMatchObject({ status: 500, body: 'unsupported by this waypoint: mirror' })
  })

  it('answers 500 for the share of an invalid HTTPRoute backend, 503 NC for a VirtualService', async () => {
    await serve(10)
    const destinations = [{ ...to(), service: '' }]
    world.setRoute([{ action: { type: 'forward', destinations } }])
    const port = await world.dial()
    expect(await call(port)).toMatchObject({ status: 503, body: '' })
    world.setRoute([{ action: { type: 'forward', destinations } }], { dialect: 'HTTPRoute' })
    expect((await call(port)).status).toBe(500)
  })
})

describe('local replies', () => {
  it('says that no endpoint is there', async () => {
    const port = await world.dial()
    expect(await call(port)).toMatchObject({ status: 503, body: 'no healthy upstream' })
    world.setRoute([{ action: { type: 'forward', destinations: [to('missing')] } }])
    expect(await call(port)).toMatchObject({ status: 503, body: 'no healthy upstream' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log()).map((entry) => entry['response_flags'])).toEqual(['UH', 'UH'])
  })

  it('says that an endpoint cannot be reached, after the default two retries', async () => {
    const endpoint = await serve(10)
    await endpoint.stop()
    const answer = await call(await world.dial())
    expect(answer.status).toBe(503)
    expect(answer.body).toMatch(
      /^upstream connect error or disconnect\/reset before headers\. retried and the latest reset reason: remote connection failure/,
    )
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_flags: 'UF,URX', attempts: 3 })
  })

  it('says that the upstream closed before its answer', async () => {
    await serve(10, (_request, response) => void response.socket?.destroy())
    const answer = await call(await world.dial(), { method: 'POST', body: 'x' })
    expect(answer).toMatchObject({
      status: 503,
      body: 'upstream connect error or disconnect/reset before headers. reset reason: connection termination',
    })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_flags: 'UC' })
  })

  it('answers 504 when the route is out of time', async () => {
    await serve(10, () => undefined)
    world.setRoute([{ timeoutMs: 100 }])
    expect(await call(await world.dial())).toMatchObject({ status: 504, body: 'upstream request timeout' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_flags: 'UT', response_code_details: 'response_timeout' })
  })

  it('answers gRPC in gRPC', async () => {
    const port = await world.dial()
    const answer = await call(port, { method: 'POST', headers: { 'content-type': 'application/grpc' } })
    expect(answer.status).toBe(200)
    expect(answer.headers).toMatchObject({ 'grpc-status': '14', 'grpc-message': 'no healthy upstream' })
  })

  it('refuses HTTP/1.0, other upgrades, and bytes that are no request', async () => {
    await serve(10)
    const { connect } = await import('node:net')
    const port = await world.dial()
    const raw = (text: string) =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port })
        let answer = ''
        socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
        socket.on('end', () => resolve(answer))
        socket.on('error', reject)
        socket.write(text)
      })
    expect(await raw('GET / HTTP/1.0\r\nHost: a\r\n\r\n')).toMatch(/^HTTP\/1\.1 426 /)
    expect(await raw('GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: foo\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 403 /,
    )
    expect(await raw('GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 400 /,
    )
    expect(await raw('this is no http\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
  })
})

describe('policies', () => {
  const frontend = { principals: [{ type: 'exact', value: 'cluster.local/ns/shop/sa/frontend' }] } as const
  const api = {
    methods: [
      { type: 'exact', value: 'GET' },
      { type: 'exact', value: 'POST' },
    ],
    paths: [{ type: 'prefix', value: '/api/' }],
  } as const

  it('lets in whom an ALLOW names, for what it names, by the identity of the original client', async () => {
    await serve(10, echo('a'), { app: 'api' })
    world.setPolicy({
      scope: 'workload',
      selector: { app: 'api' },
      rules: [{ clauses: [{ matches: [frontend] }, { matches: [api] }] }],
    })
    const other = await world.dial()
    const frontendPort = await world.dial(VIP, 80, 'frontend')
    expect((await call(frontendPort, { path: '/api/x' })).status).toBe(200)
    expect((await call(frontendPort, { path: '/other' })).status).toBe(403)
    expect((await call(frontendPort, { path: '/api/x', method: 'DELETE' })).status).toBe(403)
    expect(await call(other, { path: '/api/x' })).toMatchObject({ status: 403, body: 'RBAC: access denied' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    const log = await world.log()
    expect(log[0]).toMatchObject({ response_code: 200, source_principal: 'spiffe://cluster.local/ns/shop/sa/frontend' })
    expect(log[3]).toMatchObject({
      response_code: 403,
      response_code_details: 'rbac_access_denied_matched_policy[none]',
      source_principal: 'spiffe://cluster.local/ns/shop/sa/client',
    })
  })

  it('judges the chosen endpoint where policies differ between endpoints', async () => {
    await serve(10, echo('open'), { version: 'v1' })
    await serve(11, echo('closed'), { version: 'v2' })
    world.setPolicy({ scope: 'workload', selector: { version: 'v2' }, action: 'DENY', rules: [{ clauses: [] }] })
    const port = await world.dial()
    const seen = new Set<string>()
    for (let i = 0; i < 40; i++) {
      const answer = await call(port)
      seen.add(answer.status === 200 ? parsed(answer.body).app : String(answer.status))
    }
    expect([...seen].sort()).toEqual(['403', 'open'])
  })

  it('denies what asks for an attribute that cannot be evaluated', async () => {
    await serve(10)
    world.setPolicy({ rules: [{ clauses: [{ matches: [{ unsupported: ['request.auth.claims'] }] }] }] })
    expect((await call(await world.dial())).status).toBe(403)
  })

  it('takes a change of policy with the next request on an open connection', async () => {
    const { Agent, request } = await import('node:http')
    await serve(10)
    const port = await world.dial()
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const status = () =>
      new Promise<number>((resolve, reject) =>
        request({ host: '127.0.0.1', port, agent, headers: { host: 'api' } }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode ?? 0))
        })
          .on('error', reject)
          .end(),
      )
    expect(await status()).toBe(200)
    world.setPolicy({ rules: [] })
    expect(await status()).toBe(403)
    world.state.removePolicy('shop/policy')
    expect(await status()).toBe(200)
    agent.destroy()
  })
})

describe('who may come, and where to', () => {
  const refusal = async (host: string, port: number) =>
    call(await world.dial(host, port)).then(
      () => 'answered',
      () => 'refused',
    )

  it('serves what uses this waypoint and nothing else', async () => {
    const endpoint = await serve(10)
    const appPort = endpoint.workload.services[SERVICE]?.[80] ?? 0
    expect(await refusal(VIP, 80)).toBe('answered')
    expect(await refusal(world.address(10), appPort)).toBe('answered')
    expect(await refusal(VIP, 81)).toBe('refused')
    expect(await refusal('10.96.7.254', 15008)).toBe('refused')
    expect(await refusal(world.address(1), 80)).toBe('refused')
    expect(await refusal(world.address(10), 15008)).toBe('refused')
    expect(await refusal('127.0.0.1', 80)).toBe('refused')
  })

  it('serves a pod dialled by its own address with its policies and without service routes', async () => {
    const endpoint = await serve(10)
    world.setRoute([{ action: { type: 'respond', status: 418, body: '' } }])
    const appPort = endpoint.workload.services[SERVICE]?.[80] ?? 0
    const port = await world.dial(world.address(10), appPort)
    expect((await call(port)).status).toBe(200)
    world.setPolicy({ action: 'DENY', rules: [{ clauses: [] }] })
    expect((await call(port)).status).toBe(403)
  })

  it('sends nothing to an endpoint that shows another identity', async () => {
    const server = app(echo('impostor'))
    servers.push(server)
    await world.endpoint(10, await listenOn(server, world.address(10)), {}, { certificate: 'impostor' })
    const answer = await call(await world.dial())
    expect(answer.status).toBe(503)
    expect(answer.body).toContain('transport failure reason')
  })
})
