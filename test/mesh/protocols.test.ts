// What people run, through the mesh and from end to end: HTTP, gRPC, WebSocket, bulk, half-close, server-first, both IP
// versions, pod and service addresses, directly between agents and through a waypoint.
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TWO_WAYS } from '../world/meshes.ts'
import { eventually, openWorld } from '../world/sandbox.ts'

const GIGABYTE = 1_000_000_000

let world: Awaited<ReturnType<typeof openWorld>>
beforeAll(async () => {
  world = await openWorld(TWO_WAYS)
})
afterAll(async () => {
  await world?.close()
})

/** Resident memory of a node's agent, in bytes. */
function agentMemory(node: string): number {
  const pid = world.sandbox.programs()[`agent-${node}`]
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kilobytes) * 1024
}

const ROUTES: readonly {
  readonly name: string
  readonly host: () => string
  /** The HTTP port there. */
  readonly http: number
}[] = [
  { name: 'to a pod on the other node, by IPv4 address', host: () => world.pod('far').addresses[0]!, http: 8080 },
  { name: 'to a pod on the other node, by IPv6 address', host: () => `[${world.pod('far').addresses[1]}]`, http: 8080 },
  { name: 'to a service on the other node', host: () => 'far', http: 80 },
  { name: 'to a service on the same node', host: () => 'near', http: 80 },
  { name: 'to a service behind a waypoint', host: () => 'behind.way', http: 80 },
  {
    name: 'to a pod behind a waypoint, by its address',
    host: () => world.pod('behind').addresses[0]!,
    http: 8080,
  },
]

describe.each(ROUTES)('$name', ({ host, http }) => {
  const bare = (): string => host().replace(/^\[|\]$/g, '')

  it('serves curl over HTTP/1.1 and HTTP/2, and the app sees the real client', async () => {
    const own = world.pod('client').addresses
    const one = await world.curl('client', [`http://${host()}:${http}/hello`])
    expect(one).toMatchObject({ protocol: 'HTTP/1.1', path: '/hello' })
    expect(own).toContain(one.peer.address)
    const two = await world.curl('client', ['--http2-prior-knowledge', `http://${host()}:9090/hello`])
    expect(two).toMatchObject({ protocol: 'HTTP/2', path: '/hello' })
    expect(own).toContain(two.peer.address)
  })

  it('streams gRPC both ways, with trailers and with a status alone', async () => {
    const url = `http://${host()}:9090`
    const stream = await world.exec('client', ['ambit', 'app', 'grpc', url, '-n', '100'])
    expect(JSON.parse(stream.out)).toMatchObject({ grpcStatus: '0', received: 100, equal: true })
    const alone = await world.exec('client', ['ambit', 'app', 'grpc', url, '-H', 'x-echo-status: 5'])
    expect(JSON.parse(alone.out)).toMatchObject({ grpcStatus: '5', received: 0 })
    const late = await world.exec('client', ['ambit', 'app', 'grpc', url, '-H', 'x-echo-fail-after: 3'])
    expect(JSON.parse(late.out)).toMatchObject({ grpcStatus: '14', received: 3 })
  })

  it('upgrades to a WebSocket', async () => {
    const ran = await world.exec('client', ['ambit', 'app', 'websocket', `http://${host()}:${http}/ws`, '-n', '50'])
    expect(JSON.parse(ran.out)).toMatchObject({ received: 50, equal: true, code: 1000 })
  })

  it('carries a half-close', async () => {
    const { out } = await world.sh('client', `printf 'one way' | nc -N -w 10 ${bare()} 9001`)
    expect(JSON.parse(out)).toMatchObject({ bytes: 7 })
    const echo = await world.sh(
      'client',
      `(printf 'there'; sleep 0.3; printf ' and back') | nc -N -w 10 ${bare()} 9004`,
    )
    expect(echo.out).toBe('there and back')
  })

  it('does not make a server wait that speaks first', async () => {
    const began = performance.now()
    const { out } = await world.sh('client', `(sleep 0.2; printf 'XWHO\\r\\nQUIT\\r\\n') | nc -w 10 ${bare()} 9003`)
    expect(out).toMatch(/^220 .* ESMTP/)
    expect(out).toContain('221 bye')
    const who = JSON.parse(/^250 (\{.*\})/m.exec(out)![1]!) as { peer: { address: string } }
    expect(world.pod('client').addresses).toContain(who.peer.address)
    expect(performance.now() - began).toBeLessThan(5_000)
  })

  it('answers 1 000 connections at once', async () => {
    const { out } = await world.exec(
      'client',
      [
        'ambit',
        'app',
        'load',
        `http://${host()}:${http}/many?delay=200`,
        '-n',
        '1000',
        '-c',
        '1000',
        '--timeout',
        '60',
      ],
      { timeoutMs: 90_000 },
    )
    expect(JSON.parse(out)).toMatchObject({ requests: 1000, codes: { 200: 1000 }, errors: {} })
  })
})

describe.each([ROUTES[2]!, ROUTES[4]!])('in bulk $name', ({ host, http }) => {
  it('moves a gigabyte down and up, and its checksum holds', async () => {
    const url = `http://${host()}:${http}/bulk`
    const bulk = ['ambit', 'app', 'bulk', url, '--bytes', String(GIGABYTE)]
    const down = await world.exec('client', bulk, { timeoutMs: 100_000 })
    expect(JSON.parse(down.out)).toMatchObject({ ok: true, bytes: GIGABYTE })
    const up = await world.exec('client', [...bulk, '--send'], { timeoutMs: 100_000 })
    expect(JSON.parse(up.out)).toMatchObject({ ok: true, bytes: GIGABYTE })
  }, 240_000)
})

describe('with a slow reader', () => {
  it('keeps the agents’ memory within 64 MB of idle, and does not slow the tunnel’s other streams', async () => {
    const idle = { one: agentMemory('node-1'), two: agentMemory('node-2') }
    const quick = ['ambit', 'app', 'load', 'http://far/quick', '-n', '300', '-c', '1']
    const alone = JSON.parse((await world.exec('client', quick)).out) as { latencyMs: { p50: number } }
    // 40 MB of it are read in the end: the rest must wait at its source, not in the agents.
    const reader = world.sh(
      'client',
      `timeout -s KILL 12 ambit app bulk http://far/slow --bytes ${GIGABYTE} --read-rate 1000000`,
      { timeoutMs: 30_000 },
    )
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    let most = 0
    const beside = JSON.parse((await world.exec('client', quick)).out) as {
      latencyMs: { p50: number }
      errors: object
    }
    for (let index = 0; index < 20; index++) {
      most = Math.max(most, agentMemory('node-1') - idle.one, agentMemory('node-2') - idle.two)
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    await reader
    expect(most).toBeLessThan(64 * 1024 * 1024)
    expect(beside.errors).toEqual({})
    // A stream that waited for the slow one would take seconds.
    expect(beside.latencyMs.p50).toBeLessThan(alone.latencyMs.p50 * 4 + 20)
  })
})

describe('the access log', () => {
  it('names both identities, at the client’s node, the server’s and the waypoint', async () => {
    await world.curl('client', ['http://far/log'])
    await world.curl('client', ['http://behind.way/log-way'])
    const client = 'spiffe://cluster.local/ns/direct/sa/client'
    await eventually('the client’s agent names both', () =>
      world
        .logs('agent-node-1')
        .some(
          (line) =>
            line['direction'] === 'outbound' &&
            line['src.identity'] === client &&
            line['dst.identity'] === 'spiffe://cluster.local/ns/direct/sa/far',
        ),
    )
    await eventually('the server’s agent names both', () =>
      world
        .logs('agent-node-2')
        .some(
          (line) =>
            line['direction'] === 'inbound' &&
            line['src.identity'] === client &&
            line['dst.identity'] === 'spiffe://cluster.local/ns/direct/sa/far',
        ),
    )
    await eventually('the waypoint names both', () =>
      world
        .logs('pod_way_waypoint')
        .some(
          (line) =>
            line['path'] === '/log-way' &&
            line['source_principal'] === client &&
            line['destination_principal'] === 'spiffe://cluster.local/ns/way/sa/behind',
        ),
    )
  })
})
