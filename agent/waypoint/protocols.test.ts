// What flows through the waypoint besides plain HTTP/1.1 requests: HTTP/2, gRPC, WebSocket, informational responses, opaque
// TCP, protocols whose server speaks first; with back-pressure and half-close.
import { createServer as createHttp, request as httpRequest, type Server } from 'node:http'
import {
  connect as connectH2,
  constants,
  createServer as createH2,
  type ClientHttp2Session,
  type Http2Server,
  type ServerHttp2Stream,
} from 'node:http2'
import { connect, createServer, type Server as NetServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { app, call, echo, listenOn } from './testing-apps.ts'
import { to, VIP, World } from './testing.ts'

let world: World
const sessions: ClientHttp2Session[] = []
const sockets: Socket[] = []

beforeEach(async () => {
  world = await World.open()
})

afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy()
  for (const socket of sockets.splice(0)) socket.destroy()
  await world.close()
})

async function serve(server: Server | NetServer | Http2Server, host = 10): Promise<void> {
  await world.endpoint(host, await listenOn(server as NetServer, world.address(host)))
  world.onClose(() => void server.close())
}

async function dialH2(): Promise<ClientHttp2Session> {
  const session = connectH2(`http://127.0.0.1:${await world.dial()}`)
  session.on('error', () => undefined)
  sessions.push(session)
  return session
}

async function dialRaw(port = 80): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: await world.dial(VIP, port), allowHalfOpen: true })
  socket.on('error', () => undefined)
  sockets.push(socket)
  return socket
}

interface H2Answer {
  headers: Record<string, unknown>
  body: string
  trailers: Record<string, unknown>
  rst: number
}

function h2(session: ClientHttp2Session, headers: Record<string, string>, body?: string): Promise<H2Answer> {
  return new Promise((resolve) => {
    const stream = session.request({ ':path': '/', ':authority': 'api', ...headers }, { endStream: body === undefined })
    const answer: H2Answer = { headers: {}, body: '', trailers: {}, rst: 0 }
    stream.on('response', (received) => (answer.headers = received))
    stream.on('data', (chunk: Buffer) => (answer.body += chunk.toString('latin1')))
    stream.on('trailers', (received) => (answer.trailers = received))
    stream.on('error', () => undefined)
    stream.on('close', () => resolve({ ...answer, rst: stream.rstCode }))
    if (body !== undefined) stream.end(body)
  })
}

describe('HTTP/2', () => {
  it('goes to an HTTP/2 app with trailers both ways', async () => {
    world.setService('http2')
    const server = createH2()
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      let body = ''
      let trailers = {}
      stream.on('data', (chunk: Buffer) => (body += chunk.toString()))
      stream.on('trailers', (received) => (trailers = received))
      stream.on('end', () => {
        stream.respond({ ':status': 200, 'x-path': String(headers[':path']) }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }))
        stream.end(JSON.stringify({ body, trailers }))
      })
    })
    await serve(server)
    const session = await dialH2()
    const stream = session.request({ ':method': 'POST', ':path': '/x', ':authority': 'api' }, {
      waitForTrailers: true,
    } as object)
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-mine': '1' }))
    stream.end('hello')
    let text = ''
    let trailers: Record<string, unknown> = {}
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
    stream.on('trailers', (received) => (trailers = received))
    const headers = await new Promise<Record<string, unknown>>((resolve) => {
      let head = {}
      stream.on('response', (received) => (head = received))
      stream.on('close', () => resolve(head))
    })
    expect(headers).toMatchObject({ ':status': 200, 'x-path': '/x' })
    expect(JSON.parse(text)).toMatchObject({ body: 'hello', trailers: { 'x-mine': '1' } })
    expect(trailers['x-sum']).toBe('7')
  })

  it('is turned into HTTP/1.1 for a port that is declared http, and HTTP/1.1 into HTTP/2 for one that is http2', async () => {
    world.setService('http')
    const server = app(echo('h1'))
    await serve(server)
    const answer = await h2(
      await dialH2(),
      { ':method': 'POST', ':path': '/down', cookie: 'a=1', te: 'trailers' },
      'body',
    )
    expect(answer.headers).toMatchObject({ ':status': 200, 'x-app': 'h1' })
    expect(JSON.parse(answer.body)).toMatchObject({ method: 'POST', url: '/down', body: 'body' })
    world.setService('http2')
    world.state.removeWorkload('Kubernetes//Pod/shop/api-10')
    const up = createH2()
    up.on('stream', (stream: ServerHttp2Stream, headers) => {
      stream.respond({ ':status': 200, 'content-type': 'text/plain' })
      stream.end(`${String(headers[':method'])} ${String(headers[':authority'])} ${String(headers[':path'])}`)
    })
    await serve(up, 11)
    expect(await call(await world.dial(), { path: '/up' })).toMatchObject({ status: 200, body: 'GET api /up' })
  })

  it('shows a reset of the app as a reset and never as an end', async () => {
    world.setService('http2')
    const server = createH2()
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.on('error', () => undefined)
      stream.respond({ ':status': 200 })
      stream.write('part')
      // close(code) would first end the stream cleanly: only an error makes Node send the reset alone.
      setTimeout(() => stream.destroy(new Error('broken')), 30)
    })
    await serve(server)
    const answer = await h2(await dialH2(), {})
    expect(answer.body).toBe('part')
    expect(answer.rst).not.toBe(0)
  })

  it('tells the app when the client cancels', async () => {
    world.setService('http2')
    let cancelled = 0
    const server = createH2()
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.on('error', () => undefined)
      stream.on('close', () => {
        cancelled = stream.rstCode
      })
      stream.respond({ ':status': 200 })
      stream.write('x')
    })
    await serve(server)
    const session = await dialH2()
    const stream = session.request({ ':path': '/', ':authority': 'api' })
    await new Promise((resolve) => stream.once('data', resolve))
    stream.close(constants.NGHTTP2_CANCEL)
    await world.until(() => cancelled !== 0)
    expect(cancelled).toBe(constants.NGHTTP2_CANCEL)
    await world.until(() => world.waypoint.pipeline.active === 0)
    const [cluster] = world.waypoint.clusters.all()
    await world.until(() => cluster?.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_flags: expect.stringMatching(/^D[CR]$/) })
  })

  it('lets an early answer through while the client is still sending', async () => {
    world.setService('http2')
    const server = app((request, response) => {
      request.on('error', () => undefined)
      response.writeHead(413, { connection: 'close' }).end('too much')
    })
    world.setUpstream({ policy: { connectionPool: { h2Upgrade: 'DO_NOT_UPGRADE' } } })
    world.setService('http')
    await serve(server)
    const session = await dialH2()
    const stream = session.request({ ':method': 'POST', ':path': '/', ':authority': 'api' })
    stream.on('error', () => undefined)
    let status = 0
    let body = ''
    stream.on('response', (headers) => (status = Number(headers[':status'])))
    stream.on('data', (chunk: Buffer) => (body += chunk.toString()))
    stream.write('beginning')
    await new Promise((resolve) => stream.once('end', resolve))
    expect([status, body]).toEqual([413, 'too much'])
    stream.destroy()
  })
})

describe('gRPC', () => {
  it('passes messages as they come, with the status in trailers, and counts it', async () => {
    world.setService('grpc')
    const server = createH2()
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': '' }))
      stream.on('data', (chunk: Buffer) => stream.write(chunk))
      stream.on('end', () => stream.end())
    })
    await serve(server)
    const session = await dialH2()
    const stream = session.request({
      ':method': 'POST',
      ':path': '/pkg.Echo/Stream',
      ':authority': 'api',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    let status = ''
    stream.on('trailers', (trailers) => (status = String(trailers['grpc-status'])))
    for (const message of ['one', 'two', 'three']) {
      const echoed = new Promise<string>((resolve) => stream.once('data', (chunk: Buffer) => resolve(chunk.toString())))
      stream.write(message)
      expect(await echoed).toBe(message)
    }
    const closed = new Promise((resolve) => stream.once('close', resolve))
    stream.end()
    stream.resume()
    await closed
    expect(status).toBe('0')
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect(await world.metrics.text()).toMatch(
      /istio_requests_total\{[^}]*reporter="waypoint"[^}]*request_protocol="grpc"[^}]*response_code="200"[^}]*grpc_response_status="0"[^}]*\} 1/,
    )
  })

  it('answers a denied call in trailers only', async () => {
    world.setService('grpc')
    world.setPolicy({ rules: [] })
    const answer = await h2(await dialH2(), { ':method': 'POST', 'content-type': 'application/grpc' }, 'x')
    expect(answer.headers).toMatchObject({ ':status': 200, 'grpc-status': '7', 'grpc-message': 'RBAC: access denied' })
    expect(answer.body).toBe('')
  })

  it('keeps the deadline that the client set', async () => {
    world.setService('grpc')
    const server = createH2()
    server.on('stream', (stream: ServerHttp2Stream) => void stream.on('error', () => undefined))
    await serve(server)
    const answer = await h2(
      await dialH2(),
      { ':method': 'POST', 'content-type': 'application/grpc', 'grpc-timeout': '100m' },
      'x',
    )
    expect(answer.headers).toMatchObject({ 'grpc-status': '14', 'grpc-message': 'upstream request timeout' })
  })
})

describe('upgrades and informational responses', () => {
  it('passes a WebSocket both ways, with what came together with the handshake', async () => {
    world.setService('http')
    const server = createHttp()
    server.on('upgrade', (request, socket, head) => {
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${request.headers['sec-websocket-key']}\r\n\r\nfirst`,
      )
      if (head.length > 0) socket.write(head)
      socket.on('data', (chunk) => socket.write(chunk))
      socket.on('end', () => socket.end('last'))
      socket.on('error', () => undefined)
    })
    await serve(server)
    const socket = await dialRaw()
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    socket.write(
      'GET /ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n',
    )
    await world.until(() => text.endsWith('first'))
    expect(text).toMatch(/^HTTP\/1\.1 101 /)
    expect(text.toLowerCase()).toContain('\r\nsec-websocket-accept: k\r\n')
    socket.write('ping')
    await world.until(() => text.endsWith('firstping'))
    const ended = new Promise((resolve) => socket.once('end', resolve))
    socket.end()
    await ended
    expect(text.endsWith('firstpinglast')).toBe(true)
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_code: 101 })
  })

  it('passes a WebSocket of an HTTP/2 client to an HTTP/1.1 app, judged as the GET it is', async () => {
    world.setService('http')
    const server = createHttp()
    let key = ''
    server.on('upgrade', (request, socket) => {
      key = `${request.method} ${request.url} ${String(request.headers['sec-websocket-key'])}`
      socket.write(
        'HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello',
      )
      socket.on('data', (chunk) => socket.write(chunk))
      socket.on('end', () => socket.end())
      socket.on('error', () => undefined)
    })
    await serve(server)
    world.setPolicy({ rules: [{ clauses: [{ matches: [{ methods: [{ type: 'exact', value: 'GET' }] }] }] }] })
    const session = await dialH2()
    await new Promise((resolve) => session.once('remoteSettings', resolve))
    expect(session.remoteSettings.enableConnectProtocol).toBe(true)
    const stream = session.request(
      { ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/ws', ':scheme': 'http', ':authority': 'api' },
      { endStream: false },
    )
    let text = ''
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const head = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
    expect(head[':status']).toBe(200)
    expect(head['sec-websocket-accept']).toBeUndefined()
    await world.until(() => text === 'hello')
    stream.write('frame')
    await world.until(() => text === 'helloframe')
    expect(key).toMatch(/^GET \/ws [A-Za-z0-9+/]{22}==$/)
    const closed = new Promise((resolve) => stream.once('close', resolve))
    stream.end()
    await closed
    await world.until(() => world.waypoint.pipeline.active === 0)
  })

  it('passes a WebSocket of an HTTP/1.1 client to an HTTP/2 app', async () => {
    world.setService('http2')
    const server = createH2({ settings: { enableConnectProtocol: true } })
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      stream.on('error', () => undefined)
      stream.respond({ ':status': 200 })
      stream.write(`${String(headers[':protocol'])} ${String(headers[':path'])}`)
      stream.on('data', (chunk: Buffer) => stream.write(chunk))
      stream.on('end', () => stream.end())
    })
    await serve(server)
    const socket = await dialRaw()
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    socket.write(
      'GET /ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    )
    await world.until(() => text.endsWith('websocket /ws'))
    // The answer to the key of RFC 6455 §1.3.
    expect(text).toContain('sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n')
    socket.write('ping')
    await world.until(() => text.endsWith('websocket /wsping'))
  })

  it('refuses a plain CONNECT', async () => {
    world.setService('http')
    await serve(app(echo('x')))
    const socket = await dialRaw()
    socket.write('CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n')
    const answer = await new Promise<string>((resolve) => socket.once('data', (chunk) => resolve(chunk.toString())))
    expect(answer).toMatch(/^HTTP\/1\.1 403 /)
  })

  it('passes on the refusal of an upgrade', async () => {
    world.setService('http')
    const server = createHttp((_request, response) => void response.writeHead(400).end('no'))
    await serve(server)
    const answer = await call(await world.dial(), { headers: { connection: 'upgrade', upgrade: 'websocket' } })
    expect(answer).toMatchObject({ status: 400, body: 'no' })
  })

  it('relays 100 and 103 and does not answer 100 by itself', async () => {
    world.setService('http')
    let continued = 0
    const server = createHttp((_request, response) => void response.end('never'))
    server.on('checkContinue', (request, response) => {
      continued++
      response.writeEarlyHints({ link: '</style.css>; rel=preload' })
      response.writeContinue()
      request.resume().on('end', () => response.end('took it'))
    })
    await serve(server)
    const port = await world.dial()
    const seen: string[] = []
    const body = await new Promise<string>((resolve, reject) => {
      const request = httpRequest({
        host: '127.0.0.1',
        port,
        method: 'POST',
        headers: { host: 'api', expect: '100-continue', 'content-length': '4' },
      })
      request.on('continue', () => {
        seen.push('100')
        request.end('body')
      })
      request.on('information', (info) => seen.push(String(info.statusCode)))
      request.on('response', (response) => {
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('end', () => resolve(text))
      })
      request.on('error', reject)
      request.flushHeaders()
    })
    expect([body, continued]).toEqual(['took it', 1])
    expect(seen).toContain('103')
    expect(seen).toContain('100')
  })
})

describe('opaque connections', () => {
  const banner = () =>
    createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined)
      socket.write('220 ready\r\n')
      socket.on('data', (chunk) => socket.write(chunk))
      socket.on('end', () => socket.end('bye'))
    })

  it.each(['tcp', 'unknown'] as const)('reach a server that speaks first, on a port declared %s', async (protocol) => {
    world.setService(protocol)
    await serve(banner())
    const socket = await dialRaw()
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    await world.until(() => text === '220 ready\r\n')
    socket.write('HELO me\r\n')
    await world.until(() => text === '220 ready\r\nHELO me\r\n')
    const ended = new Promise((resolve) => socket.once('end', resolve))
    socket.end()
    await ended
    expect(text.endsWith('bye')).toBe(true)
    socket.destroy()
    await world.until(() => world.waypoint.opaque === 0)
    const [cluster] = world.waypoint.clusters.all()
    expect([cluster?.active, cluster?.connections]).toEqual([0, 0])
    expect(await world.metrics.text()).toMatch(/istio_tcp_sent_bytes_total\{[^}]*reporter="waypoint"[^}]*\} 23/)
  })

  it('are told from HTTP by their first bytes', async () => {
    world.setService('unknown')
    const server = app(echo('http'))
    await serve(server)
    const port = await world.dial()
    expect((await call(port)).headers['server']).toBe('istio-envoy')
    const h2Server = createH2()
    h2Server.on('stream', (stream: ServerHttp2Stream) => {
      stream.respond({ ':status': 200 })
      stream.end('two')
    })
    world.state.removeWorkload('Kubernetes//Pod/shop/api-10')
    await serve(h2Server, 11)
    expect((await h2(await dialH2(), {})).body).toBe('two')
    world.state.removeWorkload('Kubernetes//Pod/shop/api-11')
    await serve(banner(), 12)
    const socket = await dialRaw()
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString('latin1')))
    socket.write('\x16\x03\x01 this looks like TLS')
    await world.until(() => text.endsWith('like TLS'))
  })

  it('are judged by what can be judged, and what asks about requests denies', async () => {
    world.setService('tcp')
    await serve(banner())
    const closes = async () => {
      const socket = await dialRaw()
      let text = ''
      socket.on('data', (chunk) => (text += chunk.toString('latin1')))
      await new Promise((resolve) => {
        socket.once('close', resolve)
        socket.on('data', resolve)
      })
      return text === ''
    }
    world.setPolicy({
      rules: [
        { clauses: [{ matches: [{ principals: [{ type: 'exact', value: 'cluster.local/ns/shop/sa/client' }] }] }] },
      ],
    })
    expect(await closes()).toBe(false)
    world.setPolicy({
      rules: [
        { clauses: [{ matches: [{ principals: [{ type: 'exact', value: 'cluster.local/ns/shop/sa/other' }] }] }] },
      ],
    })
    expect(await closes()).toBe(true)
    world.setPolicy({ rules: [{ clauses: [{ matches: [{ methods: [{ type: 'exact', value: 'GET' }] }] }] }] })
    expect(await closes()).toBe(true)
  })

  it('are cut when a policy that changed denies them', async () => {
    world.setService('tcp')
    await serve(banner())
    const socket = await dialRaw()
    await new Promise((resolve) => socket.once('data', resolve))
    world.setPolicy({ rules: [] })
    const closed = new Promise((resolve) => socket.once('close', resolve))
    world.waypoint.refresh()
    await closed
    await world.until(() => world.waypoint.opaque === 0)
    expect((await world.log())[0]).toMatchObject({
      response_code_details: expect.stringContaining('rbac_access_denied'),
    })
  })

  it('follow the TCP routes of the service', async () => {
    world.setService('tcp')
    await serve(banner())
    world.setRoute([], { tcp: [{ port: 80, destinations: [to()], source: { kind: 'T', namespace: '', name: '' } }] })
    const socket = await dialRaw()
    const text = await new Promise<string>((resolve) => socket.once('data', (chunk) => resolve(chunk.toString())))
    expect(text).toBe('220 ready\r\n')
    world.setRoute([], { tcp: [{ port: 81, destinations: [to()], source: { kind: 'T', namespace: '', name: '' } }] })
    const refused = await dialRaw()
    await new Promise((resolve) => refused.once('close', resolve))
  })
})

describe('back-pressure', () => {
  it.each(['http', 'tcp'] as const)(
    'of a client that does not read stops the app (%s)',
    async (protocol) => {
      world.setService(protocol)
      let written = 0
      const chunk = Buffer.alloc(65_536)
      const pump = (socket: NodeJS.WritableStream) => {
        const write = () => {
          while (written < 200 << 20) {
            written += chunk.length
            if (!socket.write(chunk)) {
              socket.once('drain', write)
              return
            }
          }
        }
        write()
      }
      const server =
        protocol === 'http'
          ? createHttp((_request, response) => {
              response.on('error', () => undefined)
              response.writeHead(200)
              pump(response)
            })
          : createServer((socket) => {
              socket.on('error', () => undefined)
              pump(socket)
            })
      await serve(server)
      const socket = await dialRaw()
      socket.pause()
      if (protocol === 'http') socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n')
      let before = -1
      while (before !== written || written === 0) {
        before = written
        await new Promise((resolve) => setTimeout(resolve, 400))
      }
      expect(written).toBeLessThan(64 << 20)
      socket.destroy()
      if ('closeAllConnections' in server) (server as Server).closeAllConnections()
    },
    30_000,
  )

  it('of an app that does not read stops the client', async () => {
    world.setService('http')
    const server = createHttp((request, response) => {
      request.pause()
      response.on('error', () => undefined)
    })
    await serve(server)
    const socket = await dialRaw()
    socket.write('POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 1000000000\r\n\r\n')
    const chunk = Buffer.alloc(65_536)
    let written = 0
    let waiting = false
    while (!waiting && written < 200 << 20) {
      written += chunk.length
      if (!socket.write(chunk)) {
        const drained = new Promise((resolve) => socket.once('drain', () => resolve(true)))
        waiting = !(await Promise.race([drained, new Promise((resolve) => setTimeout(() => resolve(false), 1_500))]))
      }
    }
    expect(waiting).toBe(true)
    expect(written).toBeLessThan(64 << 20)
    server.closeAllConnections()
  }, 30_000)
})
