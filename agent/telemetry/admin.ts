// The small HTTP servers a program has for people and machines around it: metrics, readiness, and the admin server with
// the state and the log level. The admin server listens on loopback or a unix socket only; nothing here ever shows a
// private key. Must not live here: the mesh's traffic (http/), what the state is (each program gives it).
import { randomBytes } from 'node:crypto'
import { chmodSync, lstatSync, renameSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { isLoopback, joinHostPort, parseIp, splitHostPort } from '../base/ip.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { CONTENT_TYPE, type Metrics } from './exposition.ts'
import type { Readiness } from './readiness.ts'

export interface AdminReply {
  readonly status: number
  readonly type: string
  readonly body: string
}

export interface AdminRoute {
  readonly method: 'GET' | 'POST'
  /** One line for the index page. */
  readonly about: string
  handle(query: URLSearchParams): AdminReply | Promise<AdminReply>
}

export interface AdminOptions {
  /** `HOST:PORT` (port 0: any) or `unix:PATH`. */
  readonly listen: string
  /** By path, as in `/metrics`. GET / lists them. */
  readonly routes: Readonly<Record<string, AdminRoute>>
  /** Refuse to listen anywhere but on loopback or a unix socket (ADMIN_NOT_LOCAL). */
  readonly localOnly: boolean
  /** Takes the place of a live server at a unix path, which keeps its open connections. Default: ADMIN_PORT_IN_USE. */
  readonly replace?: boolean
  readonly log: Logger
}

export interface AdminServer {
  /** `HOST:PORT` with the port really used, or `unix:PATH`. */
  readonly address: string
  close(): Promise<void>
}

/** A client has this long for its request; nothing here is slow or large. */
const REQUEST_MS = 10_000
/** Connections at once; more are refused by closing them. */
const MAX_CONNECTIONS = 64

/** Opens a server. Throws ADMIN_ADDRESS_INVALID, ADMIN_NOT_LOCAL, ADMIN_PORT_IN_USE or ADMIN_LISTEN_FAILED. */
export async function openAdmin(options: AdminOptions): Promise<AdminServer> {
  const { listen, routes, log } = options
  const path = listen.startsWith('unix:') ? listen.slice('unix:'.length) : undefined
  const target = path === undefined ? splitHostPort(listen) : undefined
  if (path === undefined && !target) {
    throw new AmbitError('ADMIN_ADDRESS_INVALID', `'${listen}' is no address to listen on.`, {
      hint: 'Write HOST:PORT, [IPV6]:PORT or unix:PATH.',
    })
  }
  if (target && options.localOnly && !isLocal(target.host)) {
    throw new AmbitError('ADMIN_NOT_LOCAL', `The admin server must not listen on ${listen}.`, {
      hint: 'It shows the whole state: use 127.0.0.1:PORT, [::1]:PORT or unix:PATH.',
    })
  }
  const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
    void serve(routes, request, response, log)
  })
  server.maxConnections = MAX_CONNECTIONS
  server.keepAliveTimeout = REQUEST_MS
  if (path === undefined) {
    await started(server, () => server.listen(target?.port ?? 0, target?.host), listen)
  } else if (options.replace === true) {
    // Of its own, so that a server that closes (which removes what it was bound to) does not take another's: not by the pid
    // alone, which repeats in containers.
    const own = `${path}.${process.pid}-${randomBytes(2).toString('hex')}`
    await started(server, () => server.listen(own), listen)
    chmodSync(own, 0o600)
    renameSync(own, path)
  } else {
    await removeStale(path)
    await started(server, () => server.listen(path), listen)
    chmodSync(path, 0o600)
  }
  const bound = server.address()
  const inode = path === undefined ? undefined : lstatSync(path).ino
  return {
    address:
      path === undefined && typeof bound === 'object' && bound ? joinHostPort(bound.address, bound.port) : listen,
    close: () =>
      new Promise((resolve) => {
        if (path !== undefined && lstatSync(path, { throwIfNoEntry: false })?.ino === inode)
          rmSync(path, { force: true })
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function isLocal(host: string): boolean {
  const bytes = parseIp(host)
  return host === 'localhost' || (bytes !== undefined && isLoopback(bytes))
}

/** The socket file of a process that died is in the way of the next one; that of a live one is left alone. */
function removeStale(path: string): Promise<void> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve()
    })
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' && lstatSync(path).isSocket()) rmSync(path, { force: true })
      resolve()
    })
  })
}

function started(server: Server, listen: () => void, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      reject(
        new AmbitError(
          taken ? 'ADMIN_PORT_IN_USE' : 'ADMIN_LISTEN_FAILED',
          `Cannot listen on ${where}: ${error.message}.`,
          {
            hint: taken
              ? 'Another process has it: stop that one or choose another address.'
              : 'Check the address and rights.',
            cause: error,
          },
        ),
      )
    })
    server.once('listening', () => {
      server.removeAllListeners('error')
      server.on('error', () => {})
      resolve()
    })
    listen()
  })
}

async function serve(
  routes: AdminOptions['routes'],
  request: IncomingMessage,
  response: ServerResponse,
  log: Logger,
): Promise<void> {
  // Bodies are not read: parameters come in the query.
  request.resume()
  let reply: AdminReply
  try {
    reply = await answer(routes, request)
  } catch (error) {
    log.error({ err: messageOf(error), url: request.url }, 'admin request failed')
    reply = text(500, messageOf(error))
  }
  response.writeHead(reply.status, {
    'content-type': reply.type,
    'content-length': Buffer.byteLength(reply.body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  response.end(request.method === 'HEAD' ? undefined : reply.body)
}

async function answer(routes: AdminOptions['routes'], request: IncomingMessage): Promise<AdminReply> {
  const [path = '/', query = ''] = (request.url ?? '/').split('?', 2)
  const method = request.method === 'HEAD' ? 'GET' : request.method
  // A page in a browser must not reach a loopback server by a name of its own.
  const origin = request.headers.origin
  if (origin !== undefined) return text(403, 'Requests from web pages are not answered.')
  if (path === '/') {
    return text(
      200,
      Object.entries(routes)
        .map(([name, route]) => `${route.method} ${name}  ${route.about}`)
        .join('\n'),
    )
  }
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined
  if (!route) return text(404, `There is no ${path}. GET / lists what there is.`)
  if (method !== route.method) return text(405, `${path} takes ${route.method} only.`)
  return await route.handle(new URLSearchParams(query))
}

/** A plain-text reply. */
export function text(status: number, body: string): AdminReply {
  return { status, type: 'text/plain; charset=utf-8', body: body.endsWith('\n') ? body : `${body}\n` }
}

/** A JSON reply. Maps become objects, bytes base64, and a private key never gets out. */
export function json(status: number, value: unknown): AdminReply {
  return { status, type: 'application/json', body: `${JSON.stringify(value, safely, 2)}\n` }
}

const SECRET = /-----BEGIN [A-Z ]*PRIVATE KEY-----/

function safely(key: string, value: unknown): unknown {
  if (typeof value === 'string' && SECRET.test(value)) return '[private key]'
  if (typeof value === 'bigint') return value.toString()
  if (value instanceof Map) return Object.fromEntries(value)
  if (value instanceof Set) return [...value]
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  // Buffers arrive here as what their toJSON made of them.
  if (/private.?key/i.test(key)) return '[private key]'
  return value
}

/** GET /metrics, also as /stats/prometheus. */
export function metricsRoutes(metrics: Pick<Metrics, 'text'>): Record<string, AdminRoute> {
  const route: AdminRoute = {
    method: 'GET',
    about: 'Prometheus metrics',
    handle: async () => ({ status: 200, type: CONTENT_TYPE, body: await metrics.text() }),
  }
  return { '/metrics': route, '/stats/prometheus': route }
}

/** GET /healthz/ready: 200, or 503 with the names of what is awaited. */
export function readyRoutes(readiness: Pick<Readiness, 'ready' | 'draining' | 'pending'>): Record<string, AdminRoute> {
  return {
    '/healthz/ready': {
      method: 'GET',
      about: 'whether this program is ready',
      handle: () =>
        readiness.ready
          ? text(200, 'ready')
          : text(503, readiness.draining ? 'draining' : `waiting for: ${readiness.pending.join(', ')}`),
    },
  }
}

/** GET /config_dump: whatever `dump` gives, as JSON. */
export function dumpRoutes(dump: () => unknown): Record<string, AdminRoute> {
  return {
    '/config_dump': {
      method: 'GET',
      about: 'the state as JSON, without keys',
      handle: async () => json(200, await dump()),
    },
  }
}

/** GET of a path: what `answer` makes of the query, as JSON; undefined means that there is no such thing. */
export function jsonRoutes(
  path: string,
  about: string,
  answer: (query: URLSearchParams) => unknown,
): Record<string, AdminRoute> {
  return {
    [path]: {
      method: 'GET',
      about,
      async handle(query) {
        const value = await answer(query)
        return value === undefined ? text(404, 'There is no such thing.') : json(200, value)
      },
    },
  }
}

/** GET /status: a short report, as JSON, that a person's command line makes a table of. */
export function statusRoutes(status: () => unknown): Record<string, AdminRoute> {
  return jsonRoutes('/status', 'how this program and its pods stand, as JSON', status)
}

/** GET /config/held: names and versions of what control sent and is in force; with ?kind= and ?name= one of them. */
export function heldRoutes(held: (query: URLSearchParams) => unknown): Record<string, AdminRoute> {
  return jsonRoutes('/config/held', 'names and versions in force; one of them: ?kind=K&name=N', held)
}

const LEVELS: readonly string[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']

/** Changes the level of loggers; false if there is no such level. */
export function setLevel(level: string, ...logs: readonly Logger[]): boolean {
  if (!LEVELS.includes(level)) return false
  for (const log of logs) log.level = level
  return true
}

/** POST /logging?level=debug: changes the level; without a parameter it says it. Children made before keep theirs unless given. */
export function loggingRoutes(...logs: readonly Logger[]): Record<string, AdminRoute> {
  return {
    '/logging': {
      method: 'POST',
      about: 'log level: ?level=trace|debug|info|warn|error',
      handle(query) {
        const level = query.get('level')
        if (level === null) return text(200, logs[0]?.level ?? 'silent')
        if (!setLevel(level, ...logs)) return text(400, `'${level}' is no level. Levels: ${LEVELS.join(', ')}.`)
        return text(200, level)
      },
    },
  }
}
