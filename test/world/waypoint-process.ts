// A real `ambit waypoint` in a process of its own, with a real control (delta xDS over gRPC, a CA) and endpoints, and HBONE
// clients on Node's own tls and http2, so that what attacks or loads it shares no codec with it. Must not live here: attacks,
// load (their tests).
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { connect as connectHttp2, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import { systemClock } from '../../agent/base/clock.ts'
import { silentLog } from '../../agent/base/log.ts'
import type { KeyPair } from '../../agent/io/connection.ts'
import { CertificateManager } from '../../agent/pki/manager.ts'
import { caServiceDefinition, caServiceImplementation } from '../../agent/wire/ca-service.ts'
import { addressCodec } from '../../agent/wire/codec/address.ts'
import { policyCodec } from '../../agent/wire/codec/policy.ts'
import { settingsCodec } from '../../agent/wire/codec/settings.ts'
import { waypointKinds } from '../../agent/wire/contract.ts'
import { startControlServer, type ControlServer } from '../../agent/wire/control-server.ts'
import { encodeResource, type EncodedResource } from '../../agent/wire/encoded.ts'
import { ResourceStore } from '../../agent/wire/resource-store.ts'
import { XdsServer } from '../../agent/wire/xds-server.ts'
import { identity, VIP, World } from '../../agent/waypoint/testing.ts'

const ambit = new URL('../../agent/bin/ambit.ts', import.meta.url).pathname

export interface Line {
  readonly level: string
  readonly msg: string
  readonly type?: string
  readonly response_code?: number
  readonly response_flags?: string
  readonly response_code_details?: string | null
  readonly [field: string]: unknown
}

/** One running program. */
export class WaypointProcess {
  readonly lines: Line[] = []
  /** Access lines seen; kept in `lines` too unless `keepAccess` is false. */
  access = 0
  keepAccess = true
  /** Lines that are no JSON: must stay empty. */
  readonly broken: string[] = []
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  readonly ports: { readonly metrics: number; readonly ready: number }
  readonly adminPath: string

  constructor(command: readonly string[], ports: { metrics: number; ready: number }, adminPath: string) {
    this.ports = ports
    this.adminPath = adminPath
    const [program = '', ...args] = command
    this.child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    let rest = ''
    this.child.stdout?.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      for (const part of parts) this.#line(part)
    })
    this.exited = new Promise((resolve) => this.child.once('exit', resolve))
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  #line(text: string): void {
    if (text.startsWith('{"type":"access"')) {
      this.access++
      if (!this.keepAccess) return
    }
    try {
      this.lines.push(JSON.parse(text) as Line)
    } catch {
      this.broken.push(text)
    }
  }

  said(text: string): readonly Line[] {
    return this.lines.filter((line) => line.msg === text)
  }

  accessLines(): readonly Line[] {
    return this.lines.filter((line) => line.type === 'access')
  }

  get(where: 'metrics' | 'ready' | 'admin', path: string, method = 'GET'): Promise<{ status: number; body: string }> {
    const target = where === 'admin' ? { socketPath: this.adminPath } : { port: this.ports[where] }
    return new Promise((resolve) => {
      httpRequest({ host: '127.0.0.1', ...target, path, method, agent: false }, (response) => {
        let body = ''
        response.on('data', (chunk: Buffer) => (body += chunk.toString()))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
      })
        .on('error', () => resolve({ status: 0, body: '' }))
        .end()
    })
  }

  async ready(wanted = 200): Promise<void> {
    while ((await this.get('ready', '/healthz/ready')).status !== wanted) await pause(30)
  }

  /** Sum of the samples of a family whose labels contain `labels`. */
  async metric(name: string, labels = ''): Promise<number> {
    return sumOf((await this.get('metrics', '/metrics')).body, name, labels)
  }

  /** Resident bytes of the program and, where it has workers, of those. */
  rss(): number {
    return processTree(this.pid).reduce((sum, pid) => sum + residentOf(pid), 0)
  }

  /** Descriptors open now, workers included. */
  fds(): number {
    return processTree(this.pid).reduce((sum, pid) => sum + countFds(pid), 0)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Waits for something another process does; the test's own time limit is the bound. */
export async function until(test: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await test())) await pause(10)
}

export function sumOf(text: string, name: string, labels = ''): number {
  let sum = 0
  for (const line of text.split('\n')) {
    if (!line.startsWith(name)) continue
    const next = line[name.length]
    if ((next === '{' || next === ' ') && line.includes(labels)) sum += Number(line.slice(line.lastIndexOf(' ') + 1))
  }
  return sum
}

function statusOf(pid: number, field: string): string {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8')
    return new RegExp(`^${field}:\\s*(\\S+)`, 'm').exec(text)?.[1] ?? ''
  } catch {
    return ''
  }
}

export function residentOf(pid: number): number {
  return Number(statusOf(pid, 'VmRSS') || 0) * 1024
}

function countFds(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/fd`).length
  } catch {
    return 0
  }
}

/** The process and its children, two levels deep. */
export function processTree(pid: number): number[] {
  const childrenOf = (parent: number): number[] => {
    try {
      return readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
    } catch {
      return []
    }
  }
  const children = childrenOf(pid)
  return [pid, ...children, ...children.flatMap(childrenOf)]
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A mesh to run waypoint processes in: CA, control, endpoints of the service `shop/api` at VIP:80. */
export class Stage {
  readonly world: World
  readonly store: ResourceStore
  readonly control: ControlServer
  readonly #certificates: CertificateManager
  readonly #programs: WaypointProcess[] = []
  #pairs = new Map<string, KeyPair>()

  private constructor(world: World, store: ResourceStore, control: ControlServer) {
    this.world = world
    this.store = store
    this.control = control
    this.#certificates = new CertificateManager({
      sign: (request) => world.authority.issue(request.csr, request.identity, request.validitySeconds),
      clock: systemClock,
      log: silentLog,
      roots: world.authority.trustBundle,
    })
  }

  static async open(): Promise<Stage> {
    const world = await World.open(true)
    world.setService()
    const store = new ResourceStore()
    const xds = new XdsServer<string>({
      store,
      clock: systemClock,
      log: silentLog,
      authenticate: (credentials) => Promise.resolve(credentials.token),
      admit: () => ({ kinds: waypointKinds, version: () => 0, includes: () => true }),
    })
    const control = await startControlServer({
      listen: '127.0.0.1:0',
      certificate: await world.authority.serverCertificate(['control.ambit-system.svc', '127.0.0.1'], 3_600),
      services: [
        { definition: xds.definition, implementation: xds.implementation },
        {
          definition: caServiceDefinition,
          implementation: caServiceImplementation<string>({
            log: silentLog,
            authenticate: (credentials) => Promise.resolve(credentials.token),
            issue: (_caller, request) => world.authority.issue(request.csr, identity('waypoint'), 3_600),
          }),
        },
      ],
    })
    writeFileSync(join(world.folder, 'token'), 'the token')
    mkdirSync(join(world.folder, 'state'), { recursive: true })
    return new Stage(world, store, control)
  }

  /** Publishes the world's state as it is now. */
  publish(): void {
    const { state } = this.world
    const set: EncodedResource[] = [
      encodeResource('MeshSettings', settingsCodec.nameOf(state.settings), settingsCodec.encode(state.settings)),
    ]
    for (const service of state.services()) {
      const value = { type: 'service', service } as const
      set.push(encodeResource('Address', addressCodec.nameOf(value), addressCodec.encode(value)))
    }
    for (const workload of state.workloads()) {
      const value = { type: 'workload', workload } as const
      set.push(encodeResource('Address', addressCodec.nameOf(value), addressCodec.encode(value)))
    }
    for (const policy of state.policies()) {
      set.push(encodeResource('Policy', policyCodec.nameOf(policy), policyCodec.encode(policy)))
    }
    this.store.update({ set, remove: [] })
  }

  /** Starts a program at `address(host)`:15008. `under`: a command in front, as `prlimit …`. */
  async start(args: readonly string[] = [], host = 2, under: readonly string[] = []): Promise<WaypointProcess> {
    const { world } = this
    const ports = { metrics: await freePort(), ready: await freePort() }
    const admin = join(world.folder, `admin-${host}`)
    const program = new WaypointProcess(
      [
        ...under,
        process.execPath,
        ambit,
        'waypoint',
        ...['--name', 'waypoint', '--namespace', 'shop', '--service-account', 'waypoint'],
        ...['--control', `127.0.0.1:${this.control.port}`, '--root-cert', join(world.folder, 'root-cert.pem')],
        ...['--token-file', join(world.folder, 'token'), '--listen', `${world.address(host)}:15008`],
        ...['--metrics', `127.0.0.1:${ports.metrics}`, '--ready', `127.0.0.1:${ports.ready}`],
        ...['--admin', `unix:${admin}`, '--state-dir', join(world.folder, 'state')],
        ...args,
      ],
      ports,
      admin,
    )
    this.#programs.push(program)
    return program
  }

  async pair(as = 'client'): Promise<KeyPair> {
    let pair = this.#pairs.get(as)
    if (!pair) this.#pairs.set(as, (pair = await this.#certificates.keyPair(identity(as))))
    return pair
  }

  get roots(): string {
    return this.world.authority.trustBundle
  }

  /** An HTTP/2 session of node:http2 with a client's certificate to the waypoint at `address(host)`. */
  async session(host = 2, as = 'client', from = 1): Promise<ClientHttp2Session> {
    const { key, certificate } = await this.pair(as)
    // Node passes localAddress on to the socket; its types do not list it here.
    const tls: ConnectionOptions & { localAddress: string } = {
      key,
      cert: certificate,
      ca: this.roots,
      host: this.world.address(host),
      port: 15008,
      localAddress: this.world.address(from),
      checkServerIdentity: () => undefined,
      ALPNProtocols: ['h2'],
    }
    return await new Promise((resolve, reject) => {
      const session = connectHttp2(`https://${this.world.address(host)}:15008`, {
        createConnection: () => connectTls(tls),
        settings: { enablePush: false, initialWindowSize: 4 << 20 },
      })
      session.once('connect', () => {
        session.off('error', reject)
        session.on('error', () => {})
        resolve(session)
      })
      session.once('error', reject)
    })
  }

  async close(): Promise<void> {
    for (const program of this.#programs) {
      program.child.kill('SIGKILL')
      await program.exited
    }
    this.#certificates.close()
    await this.control.close(100)
    await this.world.close()
  }
}

/** Opens a CONNECT stream on a session; rejects for anything but 200. */
export function tunnel(session: ClientHttp2Session, authority = `${VIP}:80`): Promise<ClientHttp2Stream> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false })
    stream.once('error', reject)
    stream.once('close', () => reject(new Error(`the tunnel was closed (${stream.rstCode})`)))
    stream.once('response', (headers) => {
      if (headers[':status'] !== 200) return reject(new Error(`status ${headers[':status']}`))
      stream.off('error', reject)
      stream.on('error', () => {})
      resolve(stream)
    })
  })
}
