// Every answer this waypoint makes itself, row by row of the table of local replies (Envoy's as Istio configures it): status, body,
// flag and details, the same again as gRPC. Each row is caused for real, over plaintext sockets.
import { createServer as createH2, constants, type ServerHttp2Stream } from 'node:http2'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Listener } from '../io/connection.ts'
import { app, echo, listenOn } from './testing-apps.ts'
import { SERVICE, to, World } from './testing.ts'

let world: World
let listener: Listener
const stops: (() => void)[] = []

beforeEach(async () => {
  world = await World.open()
  world.setService()
  listener = await world.waypoint.listenHttp({ host: '127.0.0.1', port: 0 }, { service: SERVICE, port: 80 })
})

afterEach(async () => {
  await listener.stop()
  for (const stop of stops.splice(0)) stop()
  await world.close()
})

interface Raw {
  readonly status: number
  readonly headers: string
  readonly body: string
  readonly clean: boolean
}

/** Sends bytes and reads until the waypoint closes. */
function exchange(text: string): Promise<Raw> {
  return new Promise((resolve) => {
    let out = ''
    let clean = false
    const socket = connect(listener.address.port, '127.0.0.1', () => socket.write(text, 'latin1'))
    socket.on('data', (chunk) => (out += chunk.toString('latin1')))
    socket.on('end', () => {
      clean = true
      socket.end()
    })
    socket.on('error', () => undefined)
    socket.on('close', () => {
      const [headers = '', ...rest] = out.split('\r\n\r\n')
      resolve({ status: Number(headers.slice(9, 12)), headers, body: rest.join('\r\n\r\n'), clean })
    })
  })
}

const get = (more = '', path = '/') => exchange(`GET ${path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n${more}\r\n`)
const grpc = () =>
  exchange(
    'POST /a.B/C HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n',
  )

async function endpoint(server: Parameters<typeof listenOn>[0], host = 10): Promise<void> {
  const port = await listenOn(server, world.address(host))
  stops.push(() => void server.close())
  await world.endpoint(host, port, {}, { plain: true })
}

/** An app that does this with every connection it gets. */
async function socketApp(take: (socket: Socket) => void): Promise<void> {
  const sockets = new Set<Socket>()
  stops.push(() => {
    for (const socket of sockets) socket.destroy()
  })
  await endpoint(
    createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => undefined)
      take(socket)
    }),
  )
}

async function httpApp(): Promise<void> {
  const server = app(echo('app'))
  stops.push(() => server.closeAllConnections())
  await endpoint(server)
}

async function h2App(take: (stream: ServerHttp2Stream) => void): Promise<void> {
  world.setService('http2')
  const server = createH2()
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined)
    take(stream)
  })
  server.on('session', (session) => stops.push(() => session.destroy()))
  await endpoint(server)
}

const NO_RETRY = { attempts: 0, retryOn: [], statusCodes: [], backoffMs: 1, ignorePreviousHosts: true }
const RESET = 'upstream connect error or disconnect/reset before headers. '

interface Row {
  readonly name: string
  readonly cause: () => Promise<unknown> | void
  /** Where it is not a plain GET /. */
  readonly send?: () => Promise<Raw>
  readonly status: number
  readonly body: string | RegExp
  readonly flags: string
  readonly details: string | RegExp
  /** gRPC status of the same failure; absent where a gRPC request fails otherwise or not at all. */
  readonly grpc?: number
}

const rows: readonly Row[] = [
  {
    name: 'no route',
    cause: () =>
      world.setRoute([{ matches: [{ ...anyMatch, authority: { type: 'exact', value: 'else', ignoreCase: false } }] }]),
    status: 404,
    body: '',
    flags: 'NR',
    details: 'route_not_found',
    grpc: 12,
  },
  {
    name: 'service unknown',
    cause: () => world.state.removeService(SERVICE),
    status: 404,
    body: '',
    flags: 'NR',
    details: 'route_not_found',
    grpc: 12,
  },
  {
    name: 'cluster unknown',
    cause: () =>
      world.setRoute([{ action: { type: 'forward', destinations: [{ ...to(), service: 'shop/none.shop.svc' }] } }]),
    status: 503,
    body: '',
    flags: 'NC',
    details: 'cluster_not_found',
    grpc: 14,
  },
  {
    name: 'no endpoint',
    cause: () => undefined,
    status: 503,
    body: 'no healthy upstream',
    flags: 'UH',
    details: 'no_healthy_upstream',
    grpc: 14,
  },
  {
    name: 'missing subset',
    cause: () => world.setRoute([{ action: { type: 'forward', destinations: [to('none')] } }]),
    status: 503,
    body: 'no healthy upstream',
    flags: 'UH',
    details: 'no_healthy_upstream',
    grpc: 14,
  },
  {
    name: 'connection refused, after the default retries',
    cause: () => world.endpoint(10, 1, {}, { plain: true }),
    status: 503,
    body: /^upstream connect error or disconnect\/reset before headers\. retried and the latest reset reason: remote connection failure, transport failure reason: /,
    flags: 'UF,URX',
    details: /^upstream_reset_before_response_started\{remote_connection_failure,[^ ]+\}$/,
    grpc: 14,
  },
  {
    name: 'connection refused, without retries',
    cause: async () => {
      world.setRoute([{ retry: NO_RETRY }])
      await world.endpoint(10, 1, {}, { plain: true })
    },
    status: 503,
    body: /headers\. reset reason: remote connection failure, transport failure reason: /,
    flags: 'UF',
    details: /^upstream_reset_before_response_started\{remote_connection_failure,[^ ]+\}$/,
    grpc: 14,
  },
  {
    name: 'upstream closes before headers',
    cause: () => socketApp((socket) => socket.once('data', () => socket.end())),
    status: 503,
    body: `${RESET}reset reason: connection termination`,
    flags: 'UC',
    details: 'upstream_reset_before_response_started{connection_termination}',
    grpc: 14,
  },
  {
    name: 'RST_STREAM from upstream',
    cause: () => h2App((stream) => stream.close(constants.NGHTTP2_INTERNAL_ERROR)),
    status: 503,
    body: `${RESET}reset reason: remote reset`,
    flags: 'UR',
    details: 'upstream_reset_before_response_started{remote_reset}',
    grpc: 14,
  },
  {
    name: 'REFUSED_STREAM from upstream',
    cause: () => h2App((stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM)),
    status: 503,
    body: `${RESET}retried and the latest reset reason: remote refused stream reset`,
    flags: 'UR,URX',
    details: 'upstream_reset_before_response_started{remote_refused_stream_reset}',
    grpc: 14,
  },
  {
    name: 'protocol error from upstream',
    cause: () => socketApp((socket) => socket.once('data', () => socket.write('HTTP/1.1 abc\r\n\r\n'))),
    status: 502,
    body: `${RESET}reset reason: protocol error`,
    flags: 'UPE',
    details: 'upstream_reset_before_response_started{protocol_error}',
    grpc: 14,
  },
  {
    name: 'circuit breaker',
    cause: async () => {
      await httpApp()
      world.setUpstream({ policy: { connectionPool: { http2MaxRequests: 0 } } })
    },
    status: 503,
    body: `${RESET}reset reason: overflow`,
    flags: 'UO',
    details: 'upstream_reset_before_response_started{overflow}',
    grpc: 14,
  },
  {
    name: 'route timeout',
    cause: async () => {
      await socketApp(() => undefined)
      world.setRoute([{ timeoutMs: 50 }])
    },
    status: 504,
    body: 'upstream request timeout',
    flags: 'UT',
    details: 'response_timeout',
    grpc: 14,
  },
  {
    name: 'per-try timeout',
    cause: async () => {
      await socketApp(() => undefined)
      world.setRoute([{ retry: { ...NO_RETRY, perTryTimeoutMs: 50 } }])
    },
    status: 504,
    body: 'upstream request timeout',
    flags: 'UT',
    details: 'upstream_per_try_timeout',
    grpc: 14,
  },
  {
    name: 'denied by no ALLOW',
    cause: () => world.setPolicy({ rules: [] }),
    status: 403,
    body: 'RBAC: access denied',
    flags: '-',
    details: 'rbac_access_denied_matched_policy[none]',
    grpc: 7,
  },
  {
    name: 'denied by a DENY',
    cause: () => world.setPolicy({ action: 'DENY', rules: [{ clauses: [] }] }),
    status: 403,
    body: 'RBAC: access denied',
    flags: '-',
    details: 'rbac_access_denied_matched_policy[ns[shop]-policy[policy]-rule[0]]',
    grpc: 7,
  },
  {
    name: 'direct response',
    cause: () => world.setRoute([{ action: { type: 'respond', status: 418, body: 'short and stout' } }]),
    status: 418,
    body: 'short and stout',
    flags: '-',
    details: 'direct_response',
    grpc: 2,
  },
  {
    name: 'bad path',
    cause: () => undefined,
    send: () => get('', '/a%00b'),
    status: 400,
    body: '',
    flags: '-',
    details: 'path_normalization_failed',
  },
  {
    name: 'HTTP/1.0',
    cause: httpApp,
    send: () => exchange('GET / HTTP/1.0\r\nhost: api\r\n\r\n'),
    status: 426,
    body: '',
    flags: '-',
    details: 'low_version',
  },
  {
    name: 'upgrade that is not allowed',
    cause: httpApp,
    send: () => exchange('GET / HTTP/1.1\r\nhost: api\r\nconnection: upgrade, close\r\nupgrade: other\r\n\r\n'),
    status: 403,
    body: '',
    flags: '-',
    details: 'upgrade_failed',
  },
]

const anyMatch = {
  name: '',
  port: 0,
  sourceNamespace: '',
  sourceLabels: {},
  headers: [],
  withoutHeaders: [],
  queryParams: [],
}

/** The line of the one request. */
async function line(): Promise<Record<string, unknown>> {
  let lines: Record<string, unknown>[] = []
  while (lines.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    lines = await world.log()
  }
  expect(lines).toHaveLength(1)
  return lines[0] as Record<string, unknown>
}

describe('local replies', () => {
  it.each(rows)('$name: $status $flags', async (row) => {
    await row.cause()
    const answer = await (row.send ?? get)()
    expect(answer.status).toBe(row.status)
    if (typeof row.body === 'string') expect(answer.body).toBe(row.body)
    else expect(answer.body).toMatch(row.body)
    if (row.flags === 'UO') expect(answer.headers).toContain('x-envoy-overloaded: true')
    if (answer.body !== '') expect(answer.headers).toContain('content-type: text/plain')
    expect(answer.headers).toContain('server: istio-envoy')
    expect(await line()).toMatchObject({
      response_code: row.status,
      response_flags: row.flags,
      response_code_details: typeof row.details === 'string' ? row.details : expect.stringMatching(row.details),
      bytes_sent: answer.body.length,
    })
  })

  it.each(rows.filter((row) => row.grpc !== undefined))('$name, as gRPC: status $grpc', async (row) => {
    await row.cause()
    const answer = await grpc()
    expect(answer.status).toBe(200)
    expect(answer.body).toBe('')
    expect(answer.headers).toContain('content-type: application/grpc')
    expect(answer.headers).toContain(`grpc-status: ${row.grpc}`)
    if (row.body === '') expect(answer.headers).not.toContain('grpc-message')
    else if (typeof row.body === 'string') expect(answer.headers).toContain(`grpc-message: ${row.body}`)
    else expect(answer.headers).toMatch(/grpc-message: .*upstream connect error/)
    expect(await line()).toMatchObject({ response_flags: row.flags })
  })

  it('follow no answer that has begun: the client sees it cut, flagged by who cut it', async () => {
    await socketApp((socket) =>
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf')
        setTimeout(() => socket.destroy(), 20)
      }),
    )
    const answer = await get()
    expect(answer).toMatchObject({ status: 200, body: 'half', clean: false })
    expect(await line()).toMatchObject({
      response_code: 200,
      response_flags: 'UC',
      response_code_details: 'upstream_reset_after_response_started{closed}',
    })
  })

  it('are not made for a client that went away: DC', async () => {
    const arrived = new Promise<void>((resolve) => void socketApp((socket) => socket.once('data', () => resolve())))
    await world.until(() => [...world.state.workloads()].some((workload) => workload.name === 'api-10'))
    const socket = connect(listener.address.port, '127.0.0.1', () =>
      socket.write('GET / HTTP/1.1\r\nhost: api\r\n\r\n'),
    )
    await arrived
    socket.resetAndDestroy()
    expect(await line()).toMatchObject({ response_code: 0, response_flags: 'DC' })
  })
})
