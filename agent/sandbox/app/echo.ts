// `ambit app echo`: opens the ports it is given and serves each by its name. Must not live here: the protocols.
import { createServer, type Server, type Socket } from 'node:net'
import { AmbitError } from '../../base/errors.ts'
import type { Speaker } from './answer.ts'
import type { Behaviour } from './behaviour.ts'
import { httpPort } from './http.ts'
import { serveSink, serveSmtp, serveSource, serveTcpEcho } from './tcp.ts'

export type PortKind = 'http' | 'tcp' | 'smtp' | 'sink' | 'source'

export interface EchoPort {
  readonly name: string
  readonly port: number
  readonly kind: PortKind
}

/** How long open connections may finish after SIGTERM, in milliseconds. */
const DRAIN_MS = 5_000

/**
 * What a port does, by its Kubernetes name: a word `smtp`, `sink` or `source` anywhere in it (`tcp-sink`) wins, then a
 * first word of TCP-like protocols means TCP echo, all else is HTTP.
 */
export function kindOf(name: string): PortKind {
  const words = name.toLowerCase().split('-')
  for (const kind of ['smtp', 'sink', 'source'] as const) if (words.includes(kind)) return kind
  return ['tcp', 'tls', 'https', 'mysql', 'mongo', 'redis', 'udp'].includes(words[0] ?? '') ? 'tcp' : 'http'
}

/** Parses `8080`, `http:8080`, `tcp-sink:9001`; several separated by commas. Throws APP_PORT_INVALID. */
export function parsePorts(text: string): EchoPort[] {
  const ports = new Map<number, EchoPort>()
  for (const part of text.split(',')) {
    const spec = part.trim()
    if (spec === '') continue
    const at = spec.lastIndexOf(':')
    const name = at < 0 ? '' : spec.slice(0, at)
    const digits = spec.slice(at + 1)
    const port = /^\d{1,5}$/.test(digits) ? Number(digits) : -1
    if (port < 0 || port > 65_535)
      throw new AmbitError('APP_PORT_INVALID', `'${spec}' is not a port`, { hint: 'Write it as http:8080 or 8080.' })
    if (port === 0 || !ports.has(port))
      ports.set(port === 0 ? -ports.size - 1 : port, { name, port, kind: kindOf(name) })
  }
  return [...ports.values()]
}

export interface RunningEcho {
  /** The ports that were opened, in order; a port 0 shows what the kernel chose. */
  readonly ports: readonly EchoPort[]
  /** Stops accepting and resolves when every connection is gone, or cut after the drain time. */
  close(drainMs?: number): Promise<void>
}

/** Opens every port on all addresses of both families. Throws APP_LISTEN when one cannot be opened. */
export async function startEcho(
  speaker: Speaker,
  behaviour: Behaviour,
  ports: readonly EchoPort[],
  host = '::',
): Promise<RunningEcho> {
  const http = httpPort(speaker, behaviour)
  const open = new Set<Socket>()
  const servers: Server[] = []
  const opened: EchoPort[] = []
  const serve: Record<PortKind, (socket: Socket) => void> = {
    http: (socket) => http.serve(socket),
    tcp: serveTcpEcho,
    sink: (socket) => serveSink(socket, speaker),
    source: serveSource,
    smtp: (socket) => serveSmtp(socket, speaker),
  }
  for (const port of ports) {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      open.add(socket)
      socket.on('close', () => open.delete(socket))
      serve[port.kind](socket)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(
          new AmbitError('APP_LISTEN', `cannot listen on port ${port.port}: ${cause.code ?? cause.message}`, {
            cause,
            hint: cause.code === 'EADDRINUSE' ? 'Another process of this pod has the port.' : '',
          }),
        ),
      )
      server.listen({ port: port.port, host, ipv6Only: false, backlog: 1024 }, resolve)
    })
    servers.push(server)
    const address = server.address()
    opened.push({ ...port, port: typeof address === 'object' && address ? address.port : port.port })
  }
  return {
    ports: opened,
    async close(drainMs = DRAIN_MS) {
      const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
      http.stop()
      const cut = setTimeout(() => {
        for (const socket of open) socket.destroy()
      }, drainMs)
      await Promise.all(closed)
      clearTimeout(cut)
    },
  }
}
