// Two nodes in one process for the tunnel's tests: pods are addresses of 127/8, their namespaces a test double (sockets made
// "in" one are bound to its address; listeners and captured destinations are told by the test). TLS, HTTP/2, policies, relays
// and sockets are the real ones; the kernel's half has its own tests. Must not be imported by anything but tests.
import { connect as netConnect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { systemClock, type Clock } from '../../base/clock.ts'
import { silentLog, type Logger } from '../../base/log.ts'
import { transport } from '../../io/index.ts'
import type {
  ConnectOptions,
  Endpoint,
  KeyPair,
  Listener,
  ListenOptions,
  TlsPeer,
  TlsSettings,
  Transport,
} from '../../io/connection.ts'
import { testRoot } from '../../io/testcerts.ts'
import { formatIdentity, type Identity } from '../../mesh/identity.ts'
import { sampleWorkload } from '../../mesh/samples.ts'
import { MeshState } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { Certificates } from '../../pki/contract.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import { Metrics } from '../../telemetry/exposition.ts'
import { TcpMetrics } from '../../telemetry/istio.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { Flows } from '../observe/flow.ts'
import { Refusals } from '../observe/refusals.ts'
import type { Captured, PodListeners, Redirect } from '../redirect/contract.ts'
import { Tunnels } from './tunnels.ts'

export const root = testRoot('ambit tunnel tests')

export class TestCertificates implements Certificates {
  readonly #pairs = new Map<string, KeyPair>()
  /** Identity → another that is served in its place. */
  readonly instead = new Map<string, string>()
  /** True: nobody gets one until `release`. */
  held = false
  #waiting: (() => void)[] = []
  readonly #renewed: ((identity: Identity) => void)[] = []
  readonly #trusting: ((bundle: string) => void)[] = []
  keyPair(identity: Identity): KeyPair | Promise<KeyPair> {
    if (this.held) return new Promise((resolve) => this.#waiting.push(() => resolve(this.#pair(identity))))
    return this.#pair(identity)
  }
  release(): void {
    this.held = false
    for (const give of this.#waiting.splice(0)) give()
  }
  #pair(identity: Identity): KeyPair {
    const uri = this.instead.get(formatIdentity(identity)) ?? formatIdentity(identity)
    let pair = this.#pairs.get(uri)
    if (!pair) this.#pairs.set(uri, (pair = root.issue(uri)))
    return pair
  }
  /** Another certificate and key for the same identity, as at half life. */
  renew(identity: Identity): void {
    const uri = formatIdentity(identity)
    this.#pairs.set(uri, root.issue(uri))
    for (const listener of this.#renewed) listener(identity)
  }
  onRenewed(listener: (identity: Identity) => void): void {
    this.#renewed.push(listener)
  }
  /** As if the CA had sent another bundle. */
  retrust(): void {
    for (const listener of this.#trusting) listener(root.certificate)
  }
  prefetch(): void {}
  forget(): void {}
  trust(): string {
    return root.certificate
  }
  onTrust(listener: (bundle: string) => void): void {
    this.#trusting.push(listener)
  }
  status(): [] {
    return []
  }
  close(): void {}
}

/** What a socket "made in a pod" is for. */
interface Made {
  readonly uid: string
  readonly client: Endpoint | undefined
}

/** The namespaces' double. Descriptors are numbers below zero, known to this world only. */
export class TestWorld implements Redirect, Transport {
  readonly features = {}
  /** Where captured connections wanted to go, in the order they are made. */
  wanted: Captured[] = []
  /** `address:port` of an app as its pod has it → where it really listens. */
  readonly apps = new Map<string, number>()
  /** Clients shown to apps. */
  readonly shown: Endpoint[] = []
  /** Sockets made, by pod. */
  readonly sockets: Made[] = []
  readonly modes = new Map<string, string>()
  readonly #made = new Map<number, Made>()
  readonly #addresses = new Map<string, string>()
  readonly #listeners = new Map<number, { host: string; port: number }>()
  readonly bound = new Map<string, number>()
  /** Peers that were judged in handshakes, oldest first: clients of listeners, servers of tunnels. */
  readonly clients: TlsPeer[] = []
  readonly tunnelled: TlsPeer[] = []
  #next = -2

  register(pod: RegisteredPod, plaintextPort: number): PodListeners {
    const address = pod.addresses[0] as string
    this.#addresses.set(pod.uid, address)
    const fd = (host: string, port: number): number => {
      const number = this.#next--
      this.#listeners.set(number, { host, port })
      return number
    }
    return { outbound: fd('127.0.0.1', 0), hbone: fd(address, 15008), plaintext: fd(address, plaintextPort) }
  }

  async listen(options: ListenOptions): Promise<Listener> {
    const where = this.#listeners.get(options.fd as number) as { host: string; port: number }
    const { handler, tls } = options
    const listener = await transport.listen({
      handler,
      ...where,
      ...(tls ? { tls: watched(tls, this.clients) } : {}),
    })
    this.bound.set(String(options.fd), listener.address.port)
    return listener
  }

  connect(options: ConnectOptions): ReturnType<Transport['connect']> {
    const { fd, tls, ...plain } = options
    const rest = tls ? { ...plain, tls: watched(tls, this.tunnelled) } : plain
    const made = this.#made.get(fd as number) as Made
    this.#made.delete(fd as number)
    // The app's side: in a real pod the agent's own sockets go past the plaintext listener.
    const app = made.client === undefined ? undefined : this.apps.get(`${rest.host}:${rest.port}`)
    if (made.client !== undefined) return transport.connect({ ...rest, host: '127.0.0.1', port: app ?? 1 })
    return transport.connect({ ...rest, source: this.#addresses.get(made.uid) as string })
  }

  socket(uid: string, options: { family: 4 | 6; client?: Endpoint }): number {
    const number = this.#next--
    const made = { uid, client: options.client }
    this.#made.set(number, made)
    this.sockets.push(made)
    if (options.client) this.shown.push(options.client)
    return number
  }

  originalDestination(): Captured | undefined {
    return this.wanted.shift()
  }

  enroll(): Promise<PodListeners> {
    throw new Error('not used here')
  }
  async unenroll(): Promise<void> {}
  enrolled(): readonly string[] {
    return []
  }
  setPlaintext(uid: string, mode: string): void {
    this.modes.set(uid, mode)
  }
  counters(): Record<string, number> {
    return {}
  }
  close(): void {}
  async uninstall(): Promise<void> {}
}

/** The same settings; every peer that is judged is put into `seen`. */
function watched(tls: TlsSettings, seen: TlsPeer[]): TlsSettings {
  return {
    alpn: tls.alpn,
    ...(tls.sessionKey === undefined ? {} : { sessionKey: tls.sessionKey }),
    trust: () => tls.trust(),
    certificate: (serverName) => tls.certificate(serverName),
    verify(peer) {
      seen.push(peer)
      return tls.verify(peer)
    },
  }
}

/** Keeps access lines as objects. */
export class Lines {
  readonly entries: Record<string, unknown>[] = []
  line(json: string): void {
    this.entries.push(JSON.parse(json) as Record<string, unknown>)
  }
  async until(test: (entry: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.entries.find(test)
      if (found) return found
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }
}

export interface TestNode {
  readonly name: string
  /** What the agent warned of in its own log. */
  readonly warnings: Record<string, unknown>[]
  readonly tunnels: Tunnels
  readonly certificates: TestCertificates
  readonly lines: Lines
  readonly metrics: Metrics
}

export interface TestPod {
  readonly pod: RegisteredPod
  readonly address: string
  readonly workload: Workload
  /** Dials as the pod's app would: the connection is captured and wanted to go there. */
  dial(to: Captured): Socket
}

/** One world per test file: `net` is the second byte of its pods' addresses. */
export class Cluster {
  readonly world = new TestWorld()
  readonly state = new MeshState()
  readonly nodes: TestNode[] = []
  readonly sockets: Socket[] = []
  readonly servers: Server[] = []
  readonly #net: number
  readonly #clock: Clock
  #host = 1

  constructor(net: number, clock: Clock = systemClock) {
    this.#net = net
    this.#clock = clock
  }

  node(name: string, waitMs = 300): TestNode {
    const metrics = new Metrics('agent', 'test')
    const lines = new Lines()
    const certificates = new TestCertificates()
    const warnings: Record<string, unknown>[] = []
    const warn = (fields: Record<string, unknown>): number => warnings.push(fields)
    const log = Object.assign(Object.create(silentLog) as Logger, { warn })
    const tunnels = new Tunnels({
      node: name,
      transport: this.world,
      redirect: this.world,
      certificates,
      view: () => this.state,
      flows: new Flows(new TcpMetrics(metrics), new Refusals(metrics), lines as unknown as AccessLog, this.#clock),
      clock: this.#clock,
      log,
      waitMs,
      connectMs: 2_000,
    })
    const node = { name, warnings, tunnels, certificates, lines, metrics }
    this.nodes.push(node)
    return node
  }

  changed(): void {
    for (const { tunnels } of this.nodes) tunnels.changed()
  }

  async pod(node: TestNode, name: string, given: Partial<Workload> = {}, known = true): Promise<TestPod> {
    const address = `127.${this.#net}.0.${this.#host++}`
    const workload = sampleWorkload({ name, node: node.name, addresses: [address], ...given })
    if (known) this.state.setWorkload(workload)
    const pod: RegisteredPod = { uid: name, netns: '', namespace: workload.namespace, name, addresses: [address] }
    const listeners = this.world.register(pod, 9_080)
    await node.tunnels.addPod(pod, listeners)
    this.changed()
    const port = this.world.bound.get(String(listeners.outbound)) as number
    return {
      pod,
      address,
      workload,
      dial: (to) => {
        this.world.wanted.push(to)
        return this.connect('127.0.0.1', port)
      },
    }
  }

  connect(host: string, port: number, localAddress?: string): Socket {
    const server = createConnection(host, port, localAddress)
    this.sockets.push(server)
    return server
  }

  /** An app: `address:port` in the mesh leads to this server. */
  async app(address: string, port: number, onConnection: (socket: Socket) => void): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined)
      this.sockets.push(socket)
      onConnection(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    this.servers.push(server)
    this.world.apps.set(`${address}:${port}`, (server.address() as AddressInfo).port)
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    for (const { tunnels } of this.nodes) await tunnels.drain(0)
    for (const server of this.servers) server.close()
  }
}

function createConnection(host: string, port: number, localAddress?: string): Socket {
  const socket = netConnect({ host, port, allowHalfOpen: true, ...(localAddress ? { localAddress } : {}) })
  socket.on('error', () => undefined)
  return socket
}

export interface Outcome {
  readonly text: string
  /** True after a clean FIN. */
  readonly ended: boolean
  readonly error: string
}

/** Reads a socket to its end, whatever that is. */
export function outcome(socket: Socket): Promise<Outcome> {
  return new Promise((resolve) => {
    const parts: Buffer[] = []
    let ended = false
    let error = ''
    socket.on('data', (chunk: Buffer) => parts.push(chunk))
    socket.on('error', (reason: NodeJS.ErrnoException) => (error = reason.code ?? reason.message))
    socket.on('end', () => {
      ended = true
      socket.end()
    })
    socket.on('close', () => resolve({ text: Buffer.concat(parts).toString(), ended, error }))
  })
}
