// What the waypoint does when things go wrong or get much: retries, limits, ejection, races, drain; and what it counts.
import { Agent, request as httpRequest, type RequestListener, type Server } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { RetryPolicy } from '../mesh/route.ts'
import { app, call, echo, listenOn, type Answer } from './testing-apps.ts'
import { VIP, World } from './testing.ts'

let world: World
const servers: Server[] = []

beforeEach(async () => {
  world = await World.open()
  world.setService()
})

afterEach(async () => {
  for (const server of servers.splice(0)) server.closeAllConnections()
  await world.close()
})

async function serve(host: number, listener: RequestListener = echo(`app-${host}`)) {
  const server = app(listener)
  servers.push(server)
  const port = await listenOn(server, world.address(host))
  world.onClose(() => void server.close())
  return world.endpoint(host, port)
}

const cluster = () => [...world.waypoint.clusters.all()][0]

const retry = (over: Partial<RetryPolicy>): RetryPolicy => ({
  attempts: 2,
  retryOn: ['5xx'],
  statusCodes: [],
  backoffMs: 1,
  ignorePreviousHosts: true,
  ...over,
})

/** Requests that wait at the app until they are let go. */
function gate() {
  const waiting: (() => void)[] = []
  const listener: RequestListener = (_request, response) => void waiting.push(() => response.end('done'))
  return { waiting, listener }
}

describe('retries', () => {
  it('send the whole request again, to another endpoint', async () => {
    const bodies: string[] = []
    const record =
      (status: number): RequestListener =>
      (request, response) => {
        let body = ''
        request.on('data', (chunk: Buffer) => (body += chunk.toString()))
        request.on('end', () => {
          bodies.push(`${status} ${body} ${String(request.headers['x-envoy-attempt-count'])}`)
          response.writeHead(status).end(String(status))
        })
      }
    await serve(10, record(500))
    await serve(11, record(200))
    world.setRoute([{ retry: retry({}) }])
    world.setUpstream({ policy: { loadBalancer: 'ROUND_ROBIN' } })
    const port = await world.dial()
    for (let i = 0; i < 4; i++) expect((await call(port, { method: 'POST', body: `b${i}` })).status).toBe(200)
    expect(bodies.filter((text) => text.startsWith('500')).length).toBeGreaterThan(0)
    expect(bodies).toContain('200 b0 2')
  })

  it('end after the attempts of the policy, with the last answer', async () => {
    let requests = 0
    await serve(10, (_request, response) => {
      requests++
      response.writeHead(503).end(`try ${requests}`)
    })
    world.setRoute([{ retry: retry({ attempts: 3 }) }])
    expect(await call(await world.dial())).toMatchObject({ status: 503, body: 'try 4' })
    expect(requests).toBe(4)
  })

  it('are not made by default for answers, resets of requests that may have been seen, or with attempts 0', async () => {
    let requests = 0
    await serve(10, (_request, response) => {
      requests++
      response.writeHead(503).end()
    })
    const port = await world.dial()
    expect((await call(port)).status).toBe(503)
    expect(requests).toBe(1)
    world.setRoute([{ retry: retry({ attempts: 0 }) }])
    expect((await call(port)).status).toBe(503)
    expect(requests).toBe(2)
  })

  it('are not made for a body that is larger than the buffer', async () => {
    let requests = 0
    await serve(10, (request, response) => {
      requests++
      request.resume().on('end', () => response.writeHead(500).end('no'))
    })
    world.setRoute([{ retry: retry({}) }])
    const port = await world.dial()
    expect((await call(port, { method: 'POST', body: Buffer.alloc(1 << 20) })).status).toBe(500)
    expect(requests).toBe(1)
    expect((await call(port, { method: 'POST', body: Buffer.alloc(1000) })).status).toBe(500)
    expect(requests).toBe(4)
  })

  it('are never made once a byte of an answer went to the client', async () => {
    let requests = 0
    await serve(10, (_request, response) => {
      requests++
      response.writeHead(200)
      response.write('x')
      setTimeout(() => response.destroy(), 20)
    })
    world.setRoute([{ retry: retry({ retryOn: ['5xx', 'reset'] }) }])
    await expect(call(await world.dial())).rejects.toThrow()
    expect(requests).toBe(1)
  })

  it('are made when a try takes too long, within the time of the route', async () => {
    let requests = 0
    await serve(10, (_request, response) => {
      if (++requests === 3) response.end('third')
    })
    world.setRoute([{ timeoutMs: 5_000, retry: retry({ perTryTimeoutMs: 80 }) }])
    const port = await world.dial()
    expect(await call(port)).toMatchObject({ status: 200, body: 'third' })
    requests = 10
    const failed = await call(port)
    expect(failed).toMatchObject({ status: 504, body: 'upstream request timeout' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log()).at(-1)).toMatchObject({ response_code_details: 'upstream_per_try_timeout' })
    expect([cluster()?.active, cluster()?.retries, cluster()?.pending]).toEqual([0, 0, 0])
  })

  it('cover the race with a kept-alive connection that the app closes just then', async () => {
    let connections = 0
    let requests = 0
    const server = createServer((socket: Socket) => {
      connections++
      socket.on('error', () => undefined)
      let served = 0
      socket.on('data', () => {
        requests++
        // The second request on a connection meets a server that has given it up.
        if (++served === 2) socket.resetAndDestroy()
        else socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')
      })
    })
    await world.endpoint(10, await listenOn(server, world.address(10)))
    world.onClose(() => void server.close())
    const port = await world.dial()
    for (let i = 0; i < 6; i++) expect((await call(port)).status, `request ${i}`).toBe(200)
    expect(connections).toBeGreaterThan(2)
    expect(requests).toBeGreaterThan(6)
    // A POST may have been seen: it is not sent twice.
    expect((await call(port, { method: 'POST', body: 'x' })).status).toBe(503)
  })
})

describe('limits', () => {
  it('answer 503 UO beyond the requests that may be in flight, at once', async () => {
    const { waiting, listener } = gate()
    await serve(10, listener)
    world.setUpstream({ policy: { connectionPool: { http2MaxRequests: 2 } } })
    const port = await world.dial()
    const first = [call(port), call(port)]
    await world.until(() => waiting.length === 2)
    const refused = await call(port)
    expect(refused).toMatchObject({
      status: 503,
      body: 'upstream connect error or disconnect/reset before headers. reset reason: overflow',
    })
    expect(refused.headers['x-envoy-overloaded']).toBe('true')
    for (const go of waiting) go()
    for (const answer of await Promise.all(first)) expect(answer.status).toBe(200)
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_flags: 'UO' })
    const again = call(port)
    await world.until(() => waiting.length === 3)
    waiting[2]?.()
    expect((await again).status).toBe(200)
  })

  it('let requests wait for a connection up to the limit of those that wait', async () => {
    const { waiting, listener } = gate()
    await serve(10, listener)
    world.setUpstream({ policy: { connectionPool: { maxConnections: 1, http1MaxPendingRequests: 1 } } })
    const port = await world.dial()
    const first = call(port)
    await world.until(() => waiting.length === 1)
    const second = call(port)
    await world.until(() => cluster()?.pending === 1)
    expect((await call(port)).status).toBe(503)
    waiting[0]?.()
    expect((await first).status).toBe(200)
    await world.until(() => waiting.length === 2)
    waiting[1]?.()
    expect((await second).status).toBe(200)
  })

  it("do not let one client's idle connections starve another", async () => {
    await serve(10)
    world.setUpstream({ policy: { connectionPool: { maxConnections: 1 } } })
    // Sessions are never shared between clients: each of the two needs the one connection that may be.
    const [first, second] = [await world.dial(), await world.dial(VIP, 80, 'client', 3)]
    for (let i = 0; i < 3; i++) {
      expect((await call(first)).status).toBe(200)
      expect((await call(second)).status).toBe(200)
    }
    await Promise.all([first, second, first, second].map(async (port) => expect((await call(port)).status).toBe(200)))
    expect(cluster()?.connections).toBeLessThanOrEqual(1)
  })

  it('close a connection after the requests it may carry', async () => {
    let connections = 0
    const server = app(echo('x'))
    servers.push(server)
    server.on('connection', () => connections++)
    await world.endpoint(10, await listenOn(server, world.address(10)))
    world.setUpstream({ policy: { connectionPool: { maxRequestsPerConnection: 2 } } })
    const port = await world.dial()
    for (let i = 0; i < 6; i++) expect((await call(port)).status).toBe(200)
    expect(connections).toBe(3)
  })

  it('give a connection timeout its own reason', async () => {
    world.setUpstream({ policy: { connectionPool: { connectTimeoutMs: 150 } } })
    world.setRoute([{ retry: retry({ attempts: 0 }) }])
    // An endpoint that accepts the tunnel's TCP connection and says nothing.
    const silent = createServer((socket) => void socket.on('error', () => undefined))
    await new Promise<void>((resolve) => silent.listen(15008, world.address(10), resolve))
    world.onClose(() => void silent.close())
    const { workload, stop } = await world.endpoint(12, 1)
    await stop()
    world.state.setWorkload({ ...workload, addresses: [world.address(10)] })
    const answer = await call(await world.dial())
    expect(answer.status).toBe(503)
    expect(answer.body).toMatch(/reset reason: connection timeout/)
  })
})

describe('outlier detection', () => {
  it('takes an endpoint out that keeps failing, and back after its time', async () => {
    let broken = true
    await serve(10, (_request, response) => void response.writeHead(broken ? 500 : 200).end('10'))
    await serve(11, (_request, response) => void response.end('11'))
    world.setUpstream({
      policy: {
        loadBalancer: 'ROUND_ROBIN',
        outlierDetection: {
          consecutive5xxErrors: 3,
          consecutiveGatewayErrors: 0,
          splitExternalLocalOriginErrors: false,
          consecutiveLocalOriginFailures: 5,
          intervalMs: 50,
          baseEjectionTimeMs: 300,
          maxEjectionPercent: 100,
          minHealthPercent: 0,
        },
      },
    })
    const port = await world.dial()
    let failures = 0
    for (let i = 0; i < 20; i++) if ((await call(port)).status === 500) failures++
    expect(failures).toBe(3)
    expect(cluster()?.ejected).toBe(1)
    expect(await world.metrics.text()).toContain(
      'ambit_waypoint_hosts_ejected{cluster="outbound|80||api.shop.svc.cluster.local"} 1',
    )
    broken = false
    await new Promise((resolve) => setTimeout(resolve, 400))
    const bodies = new Set<string>()
    for (let i = 0; i < 10; i++) bodies.add((await call(port)).body)
    expect([...bodies].sort()).toEqual(['10', '11'])
    world.setUpstream({ policy: {} })
    await call(await world.dial())
    expect(await world.metrics.text()).not.toContain('ambit_waypoint_hosts_ejected{')
  })

  it('answers UH when every endpoint is out', async () => {
    await serve(10, (_request, response) => void response.writeHead(500).end())
    world.setUpstream({
      policy: {
        outlierDetection: {
          consecutive5xxErrors: 1,
          consecutiveGatewayErrors: 0,
          splitExternalLocalOriginErrors: false,
          consecutiveLocalOriginFailures: 5,
          intervalMs: 10_000,
          baseEjectionTimeMs: 30_000,
          maxEjectionPercent: 100,
          minHealthPercent: 0,
        },
      },
    })
    const port = await world.dial()
    expect((await call(port)).status).toBe(500)
    expect(await call(port)).toMatchObject({ status: 503, body: 'no healthy upstream' })
  })
})

describe('endpoints that come and go', () => {
  it('are used and left without a failed request', async () => {
    await serve(10)
    const port = await world.dial()
    let stop = false
    const failures: number[] = []
    let done = 0
    const load = async () => {
      while (!stop) {
        const { status } = await call(port)
        done++
        if (status !== 200) failures.push(status)
      }
    }
    const running = [load(), load(), load()]
    for (const host of [11, 12]) {
      const { workload } = await serve(host)
      await new Promise((resolve) => setTimeout(resolve, 100))
      world.state.removeWorkload(workload.uid)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    stop = true
    await Promise.all(running)
    expect(failures).toEqual([])
    expect(done).toBeGreaterThan(20)
  })

  it('take no traffic while they are not ready', async () => {
    const { workload } = await serve(10)
    await serve(11)
    world.state.setWorkload({ ...workload, healthy: false })
    const port = await world.dial()
    for (let i = 0; i < 10; i++) expect((await call(port)).headers['x-app']).toBe('app-11')
  })
})

describe('load balancing', () => {
  it('goes round, or to the less loaded one', async () => {
    const counts: Record<string, number> = {}
    const counting =
      (name: string, delay: number): RequestListener =>
      (_request, response) => {
        counts[name] = (counts[name] ?? 0) + 1
        setTimeout(() => response.end(), delay)
      }
    await serve(10, counting('slow', 120))
    await serve(11, counting('fast', 0))
    world.setUpstream({ policy: { loadBalancer: 'ROUND_ROBIN' } })
    const port = await world.dial()
    for (let i = 0; i < 10; i++) await call(port)
    expect(counts).toEqual({ slow: 5, fast: 5 })
    world.setUpstream({ policy: { loadBalancer: 'LEAST_REQUEST' } })
    counts['slow'] = 0
    counts['fast'] = 0
    const clients = Array.from({ length: 6 }, async () => {
      for (let i = 0; i < 20; i++) await call(port)
    })
    await Promise.all(clients)
    expect(counts['fast']).toBeGreaterThan((counts['slow'] ?? 0) * 1.2)
  })
})

describe('drain', () => {
  it('lets requests in flight end, tells clients to go, and takes no new connection', async () => {
    const { waiting, listener } = gate()
    await serve(10, listener)
    const port = await world.dial()
    const agent = new Agent({ keepAlive: true })
    const answer = new Promise<Answer['headers']>((resolve, reject) => {
      httpRequest({ host: '127.0.0.1', port, agent, headers: { host: 'api' } }, (response) => {
        response.resume().on('end', () => resolve(response.headers))
      })
        .on('error', reject)
        .end()
    })
    await world.until(() => waiting.length === 1)
    const drained = world.waypoint.drain(10_000)
    await new Promise((resolve) => setTimeout(resolve, 100))
    await expect(call(await world.dial())).rejects.toThrow()
    waiting[0]?.()
    expect((await answer)['connection']).toBe('close')
    await drained
    expect(world.waypoint.pipeline.active).toBe(0)
    agent.destroy()
  })

  it('ends at its deadline although a request does not', async () => {
    const { waiting, listener } = gate()
    await serve(10, listener)
    const pending = call(await world.dial()).then(
      () => 'answered',
      () => 'cut',
    )
    await world.until(() => waiting.length === 1)
    await world.waypoint.drain(200)
    world.waypoint.close()
    expect(await pending).toBe('cut')
  })
})

describe('clients that go away', () => {
  it('at any byte of an exchange leave nothing behind', async () => {
    let requests = 0
    await serve(10, (request, response) => {
      requests++
      request.resume()
      response.on('error', () => undefined)
      setTimeout(() => response.end('x'.repeat(100)), 1)
    })
    const port = await world.dial()
    const bytes = Buffer.from(
      'POST /x HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    )
    for (let at = 1; at <= bytes.length; at++) {
      await new Promise<void>((resolve) => {
        const socket = connect({ host: '127.0.0.1', port }, () => {
          socket.write(bytes.subarray(0, at))
          // Long enough for the bytes to arrive, not always for the answer.
          setTimeout(() => (at % 2 === 0 ? socket.resetAndDestroy() : socket.destroy()), 1 + (at % 8))
        })
        socket.on('error', () => undefined)
        socket.on('close', () => resolve())
      })
    }
    expect(requests).toBeGreaterThan(0)
    expect((await call(port)).status).toBe(200)
    await world.until(() => world.waypoint.pipeline.active === 0)
    await world.until(() => cluster()?.active === 0)
    expect(cluster()?.pending).toBe(0)
  })
})

describe('telemetry', () => {
  it("counts requests with Istio's labels and writes Istio's access fields", async () => {
    await serve(10)
    const port = await world.dial(VIP, 80, 'client')
    await call(port, {
      method: 'POST',
      path: '/x?y',
      body: 'hello',
      headers: { 'user-agent': 'test', 'x-request-id': 'mine' },
    })
    await world.until(() => world.waypoint.pipeline.active === 0)
    const text = await world.metrics.text()
    const line = text.split('\n').find((one) => one.startsWith('istio_requests_total{')) ?? ''
    for (const label of [
      'reporter="waypoint"',
      'source_workload="client"',
      'source_workload_namespace="shop"',
      'source_principal="spiffe://cluster.local/ns/shop/sa/client"',
      'destination_service="api.shop.svc.cluster.local"',
      'destination_service_name="api"',
      'destination_service_namespace="shop"',
      'destination_workload="api-10"',
      'destination_principal="spiffe://cluster.local/ns/shop/sa/api"',
      'request_protocol="http"',
      'response_code="200"',
      'response_flags="-"',
      'connection_security_policy="mutual_tls"',
    ]) {
      expect(line).toContain(label)
    }
    expect(line).toMatch(/ 1$/)
    for (const name of ['request_duration_milliseconds', 'request_bytes', 'response_bytes']) {
      expect(text).toMatch(new RegExp(`istio_${name}_count\\{[^}]*\\} 1\\n`))
    }
    const [entry] = await world.log()
    expect(entry).toMatchObject({
      method: 'POST',
      path: '/x?y',
      protocol: 'HTTP/1.1',
      response_code: 200,
      response_flags: '-',
      response_code_details: 'via_upstream',
      bytes_received: 5,
      user_agent: 'test',
      request_id: 'mine',
      authority: 'api',
      upstream_cluster: 'outbound|80||api.shop.svc.cluster.local',
      downstream_local_address: `${VIP}:80`,
      source_workload: 'shop/client',
      destination_workload: 'shop/api-10',
    })
    expect(String(entry?.['downstream_remote_address'])).toContain(`${world.address(1)}:`)
    expect(String(entry?.['upstream_host'])).toContain(`${world.address(10)}:`)
  })

  it('forgets nothing: every gauge is back at zero after load with cancelled requests', async () => {
    await serve(10, (_request, response) => void setTimeout(() => response.end('late'), 40))
    const port = await world.dial()
    const cancel = (i: number) =>
      new Promise<void>((resolve) => {
        const request = httpRequest({ host: '127.0.0.1', port, agent: false, headers: { host: 'api' } }, (response) => {
          response.resume().on('end', resolve)
        })
        request.on('error', () => undefined)
        request.on('close', () => resolve())
        request.end()
        if (i % 2 === 0) setTimeout(() => request.destroy(), i)
      })
    await Promise.all(Array.from({ length: 60 }, (_value, i) => cancel(i)))
    await world.until(() => world.waypoint.pipeline.active === 0)
    await world.until(() => cluster()?.active === 0)
    expect([cluster()?.pending, cluster()?.retries]).toEqual([0, 0])
    expect((await call(port)).status).toBe(200)
  })
})
