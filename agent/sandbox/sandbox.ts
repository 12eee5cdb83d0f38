// The running sandbox: takes the folder's wishes, makes pods follow them, tells control, DNS and the nodes' service rules
// what there is. Must not live here: how a pod is run (pod-runner.ts), the command line (main.ts).
import { existsSync, mkdirSync, openSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AmbitError, messageOf } from '../base/errors.ts'
import { openLog, type Logger } from '../base/log.ts'
import { loadPaths, type FolderCache } from '../config/folder.ts'
import { IMAGES_FILE, parseImages } from '../config/images.ts'
import type { Problem } from '../config/problem.ts'
import { ResourceStore } from '../config/store.ts'
import { askAgent } from './agent-client.ts'
import { claim, sweep, type Claim } from './claim.ts'
import { ServiceAddresses, Slots } from './cluster/addresses.ts'
import { desiredOf, type Desired } from './cluster/desired.ts'
import { dnsRecords, virtualServices, type AddressedService } from './cluster/endpoints.ts'
import { nodeObjects, podObjects, serviceObjects } from './cluster/objects.ts'
import { planPods } from './cluster/plan.ts'
import { watchFolder } from './folder-watch.ts'
import type { Keeper } from './keeper.ts'
import { CLUSTER_DOMAIN, layoutOf, MAX_NODES, type Layout, type NodeLayout } from './layout.ts'
import { keepLogsSmall } from './logs.ts'
import { PodRunner, type PodWorld } from './pod-runner.ts'
import {
  agentKeeper,
  controlAddress,
  controlKeeper,
  DnsProgram,
  holderKeeper,
  isAgentReady,
  isControlReady,
  isHolderReady,
  metricsUrl,
  pathsOf,
  waitFor,
  type Paths,
} from './programs.ts'
import { TOKEN_REFRESH_MS, TokenIssuer, writeWhole } from './tokens.ts'
import { findCgroupRoot, makeCgroup } from './world/cgroup.ts'
import { mountBpffs } from './world/bpffs.ts'
import { emptyRecords } from './world/dns.ts'
import { buildNetwork, guardRules } from './world/network.ts'
import { NETNS_ROOT, run } from './world/run.ts'
import { serviceRules } from './world/services.ts'

export interface SandboxOptions {
  readonly dir: string
  readonly name: string
  readonly nodes: number
  /** False: the same world without control, agents and waypoints. */
  readonly mesh: boolean
  /** Lines for the person who started it. */
  readonly tell: (line: string) => void
  /** How long programs and pods may take to become ready, in milliseconds. */
  readonly readyMs: number
}

/** `ambit sandbox status -o json`. */
export interface Status {
  readonly nodes: readonly {
    readonly name: string
    readonly netns: string
    readonly cgroup: string
    readonly agentPid: number | null
    readonly metricsUrl: string
    readonly adminSocket: string
  }[]
  readonly pods: readonly {
    readonly namespace: string
    readonly name: string
    readonly ips: readonly string[]
    readonly node: string
    readonly netns: string
    readonly pid: number | null
    readonly enrolled: boolean
  }[]
}

export const PROJECT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const AMBIT = join(PROJECT, 'agent', 'bin', 'ambit')
const HOLDER = join(PROJECT, 'build', 'holder', 'ambit-holder')
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const ALPHABET = 'bcdfghjklmnpqrstvwxz2456789'
/** Agents' lists are asked at most this often, and answers older than this are not told. */
const AGENT_LIST_MS = 2_000

function suffix(): string {
  return Array.from({ length: 5 }, () => ALPHABET[Math.floor(Math.random() * ALPHABET.length)]).join('')
}

/** Throws SANDBOX_NEEDS_ROOT, SANDBOX_NO_FOLDER, SANDBOX_NODES. */
function checkOptions({ dir, nodes }: SandboxOptions): void {
  if (process.getuid?.() !== 0)
    throw new AmbitError('SANDBOX_NEEDS_ROOT', 'the sandbox makes network namespaces and loads eBPF: it needs root', {
      hint: 'Run it with sudo.',
    })
  if (!existsSync(dir) || !statSync(dir).isDirectory())
    throw new AmbitError('SANDBOX_NO_FOLDER', `there is no folder ${dir}`, {
      hint: 'Name a folder of Kubernetes YAML, as deploy/examples/shop.',
    })
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_NODES)
    throw new AmbitError('SANDBOX_NODES', `--nodes must be a number from 1 to ${MAX_NODES}`)
}

export class Sandbox {
  readonly options: SandboxOptions
  readonly layout: Layout
  readonly paths: Paths
  readonly log: Logger
  readonly #claim: Claim
  readonly #dns: DnsProgram
  readonly #pods = new Map<string, PodRunner>()
  readonly #slots = new Map<string, Slots>()
  readonly #addresses: ServiceAddresses
  readonly #store = new ResourceStore()
  readonly #cache: FolderCache = new Map()
  readonly #written = new Map<string, string>()
  readonly #queues = new Map<string, Promise<unknown>>()
  readonly #agents = new Map<string, Keeper>()
  readonly #holders = new Map<string, Keeper>()
  /** Agents that were started so far, but for the first of each node. */
  #generations = 0
  #control: Keeper | undefined
  #tokens: TokenIssuer | undefined
  #desired: Desired = { podSets: [], services: [], notes: [] }
  #services: AddressedService[] = []
  #images: ReadonlyMap<string, readonly string[]> = new Map()
  #told = new Set<string>()
  #stops: (() => void)[] = []
  #publishing: NodeJS.Timeout | undefined
  #ended = false
  #down: Promise<string[]> | undefined
  #ready = false
  #agentLists: { at: number; lists: Promise<void> } = { at: 0, lists: Promise.resolve() }

  private constructor(options: SandboxOptions, taken: Claim) {
    this.options = options
    this.#claim = taken
    this.layout = layoutOf(options.name, taken.id, options.nodes, findCgroupRoot())
    this.paths = pathsOf(taken.home)
    mkdirSync(this.paths.logs, { recursive: true, mode: 0o700 })
    mkdirSync(this.paths.objects, { recursive: true, mode: 0o700 })
    this.log = openLog({ program: 'sandbox', fd: openSync(join(this.paths.logs, 'sandbox.log'), 'a', 0o600) })
    this.#addresses = new ServiceAddresses(this.layout)
    this.#dns = new DnsProgram(this.layout, AMBIT, emptyRecords)
    for (const node of this.layout.nodes) this.#slots.set(node.name, new Slots())
  }

  /**
   * Makes everything and resolves when all programs and pods are ready. On failure nothing is left behind. When `stopped`
   * resolves first, what was made is removed and the sandbox is handed over as ended.
   */
  static async up(options: SandboxOptions, stopped: Promise<void> = new Promise(() => undefined)): Promise<Sandbox> {
    checkOptions(options)
    const taken = await claim(options.name)
    let sandbox: Sandbox | undefined
    try {
      sandbox = new Sandbox({ ...options, dir: realpathSync(options.dir) }, taken)
      const ending = stopped.then(() => sandbox?.down()).then(() => undefined)
      const starting = sandbox.#start()
      await Promise.race([starting, ending])
      // Nothing is made any more once the journal is gone; wait until the start has noticed.
      if (sandbox.ended) await starting.catch(() => undefined)
      return sandbox
    } catch (error) {
      // What fails because it is being taken down is no failure.
      if (sandbox?.ended) {
        await sandbox.#down
        return sandbox
      }
      if (sandbox) await sandbox.down()
      else await sweep(options.name)
      throw error
    }
  }

  get ready(): boolean {
    return this.#ready
  }

  get ended(): boolean {
    return this.#ended
  }

  get pods(): readonly PodRunner[] {
    return [...this.#pods.values()]
  }

  async #start(): Promise<void> {
    const { layout, options } = this
    const { journal } = this.#claim
    writeWhole(
      join(layout.home, 'sandbox.json'),
      JSON.stringify({ name: options.name, dir: options.dir, configDirs: [options.dir, this.paths.objects] }),
      0o600,
    )
    journal.record('cgroup', layout.cgroup)
    for (const node of layout.nodes)
      for (const path of [join(node.cgroup, 'pods'), node.kubeletCgroup]) makeCgroup(path)
    if (options.mesh) {
      await mountBpffs(journal)
      journal.record('pins', layout.pinRoot)
      for (const node of layout.nodes) mkdirSync(node.pinRoot, { recursive: true })
    }
    await buildNetwork(layout, journal)
    this.#dns.start()
    this.#read()
    this.#publish()
    if (options.mesh) await this.#startMesh()
    this.#reconcile()
    this.#stops.push(watchFolder(options.dir, () => this.#look()))
    this.#stops.push(keepLogsSmall(this.paths.logs))
    await this.#waitForPods()
    this.#ready = true
    this.log.info('ready')
  }

  async #startMesh(): Promise<void> {
    const { layout, options, paths } = this
    const tokens = await TokenIssuer.create(paths.tokenKeys)
    this.#tokens = tokens
    await this.#writeTokens()
    const refresh = setInterval(() => void this.#writeTokens(), TOKEN_REFRESH_MS)
    this.#stops.push(() => clearInterval(refresh))
    const ends = (what: string) => ({
      onEnded: (code: number | undefined, signal: string | undefined, again: number | undefined): void => {
        if (this.#ended) return
        this.log.error({ program: what, code, signal, againMs: again }, 'a program ended')
        options.tell(`${what} ended (${signal ?? `exit ${code}`}) and is started again`)
      },
      onStarted: (pid: number): void => this.log.info({ program: what, pid }, 'a program started'),
    })
    const stopped = (): boolean => this.#ended
    const control = controlKeeper(layout, AMBIT, [options.dir, paths.objects], ends('control'))
    this.#control = control
    control.start()
    await waitFor('control', control, () => isControlReady(layout), options.readyMs, stopped)
    await Promise.all(
      layout.nodes.map(async (node) => {
        const holder = holderKeeper(layout, node, HOLDER, ends(`holder-${node.name}`))
        this.#holders.set(node.name, holder)
        holder.start()
        await waitFor(`the holder of ${node.name}`, holder, () => isHolderReady(layout, node), options.readyMs, stopped)
        const agent = agentKeeper(layout, node, AMBIT, ends(`agent-${node.name}`))
        this.#agents.set(node.name, agent)
        agent.start()
        const ready = () => isAgentReady(layout, node)
        await waitFor(`the agent of ${node.name}`, agent, ready, options.readyMs, stopped)
      }),
    )
  }

  /**
   * Replaces a node's agent as a DaemonSet with maxSurge does: a new one starts, takes over and becomes ready, then the old
   * one drains for at most `graceMs`. Throws SANDBOX_NOT_READY if the new one does not get ready; the old one goes on then.
   */
  async upgradeAgent(name: string, graceMs = 30_000): Promise<void> {
    const node = this.layout.nodes.find((one) => one.name === name)
    const old = this.#agents.get(name)
    if (!node || !old) throw new AmbitError('SANDBOX_NO_AGENT', `no agent runs for node '${name}'`)
    let started = false
    const next = agentKeeper(
      this.layout,
      node,
      AMBIT,
      { onStarted: () => (started = true), onEnded: () => this.log.error({ node: name }, 'an upgraded agent ended') },
      ++this.#generations,
    )
    const before = statSync(this.paths.node(name).admin).ino
    next.start()
    // The path is the new one's as soon as it has been put there; until then the old one would answer.
    const ready = async (): Promise<boolean> =>
      started && statSync(this.paths.node(name).admin).ino !== before && (await isAgentReady(this.layout, node))
    try {
      await waitFor(`the next agent of ${name}`, next, ready, this.options.readyMs, () => this.#ended)
    } catch (error) {
      await next.stop(graceMs)
      throw error
    }
    this.#agents.set(name, next)
    await old.stop(graceMs)
  }

  async #writeTokens(): Promise<void> {
    const tokens = this.#tokens
    if (!tokens || this.#ended) return
    for (const node of this.layout.nodes)
      await tokens.write(this.paths.node(node.name).token, {
        namespace: 'ambit-system',
        serviceAccount: 'ambit-agent',
        node: node.name,
      })
    for (const pod of this.#pods.values()) await pod.refreshToken()
  }

  /** Reads folder and images; true when something that matters here changed. */
  #read(): boolean {
    const loaded = loadPaths([this.options.dir], this.#cache)
    const state = this.#store.update(loaded)
    const imagesFile = join(this.options.dir, IMAGES_FILE)
    const images = existsSync(imagesFile)
      ? parseImages(readFileSync(imagesFile, 'utf8'), imagesFile)
      : { commands: new Map<string, readonly string[]>(), problems: [] }
    const desired = desiredOf(state.resources, controlAddress(this.layout))
    // A waypoint is a part of the mesh: without one there is none.
    const podSets = this.options.mesh ? desired.podSets : desired.podSets.filter((set) => set.owner !== 'Gateway')
    const before = JSON.stringify([this.#desired, [...this.#images]])
    this.#desired = { ...desired, podSets }
    this.#images = images.commands
    this.#services = desired.services.map((service) => this.#addresses.assign(service))
    this.#tellProblems([...state.problems, ...images.problems])
    for (const note of desired.notes) this.#tellOnce(`note: ${note}`)
    return JSON.stringify([this.#desired, [...this.#images]]) !== before
  }

  #tellProblems(problems: readonly Problem[]): void {
    const now = new Set<string>()
    for (const problem of problems) {
      if (problem.severity === 'info') continue
      const place = `${problem.file}:${problem.line}${problem.field ? `: ${problem.field}` : ''}`
      const line = `${problem.severity}: ${place}: ${problem.message} [${problem.code}]${problem.hint ? ` ${problem.hint}` : ''}`
      now.add(line)
      if (this.#told.has(line)) continue
      this.options.tell(line)
      this.log.warn({ ...problem }, 'configuration')
    }
    // What was mended may be told again when it comes back.
    for (const line of this.#told) if (!now.has(line) && !line.startsWith('note: ')) this.#told.delete(line)
    for (const line of now) this.#told.add(line)
  }

  #tellOnce(line: string): void {
    if (this.#told.has(line)) return
    this.#told.add(line)
    this.options.tell(line)
  }

  #look(): void {
    if (this.#ended || !this.#read()) return
    this.#publish()
    this.#reconcile()
  }

  readonly #world = (): PodWorld => ({
    layout: this.layout,
    journal: this.#claim.journal,
    log: this.log,
    tell: (line) => this.#tellOnce(line),
    images: () => this.#images,
    services: () => this.#desired.services,
    agentSocket: this.options.mesh ? (node) => this.paths.node(node.name).socket : undefined,
    tokens: this.#tokens,
    rootCertFile: this.paths.rootCert,
    shared: [realpathSync(PROJECT), this.options.dir],
    path: `${join(PROJECT, 'agent', 'bin')}:${SYSTEM_PATH}`,
    changed: () => this.#changed(),
    rewire: (node) => this.#rewire(node),
    probeCommand: (ask, host) => [AMBIT, 'sandbox', 'probe', JSON.stringify({ ...ask, host })],
  })

  #reconcile(): void {
    if (this.#ended) return
    const plan = planPods(
      this.#desired.podSets,
      this.pods.map((pod) => ({
        uid: pod.uid,
        set: pod.set.key,
        hash: pod.set.hash,
        namespace: pod.namespace,
        name: pod.name,
        node: pod.node.name,
        ready: pod.ready,
        ending: pod.ending,
        age: pod.age,
      })),
      this.layout.nodes.map((node) => node.name),
      suffix,
    )
    for (const uid of plan.end) {
      const pod = this.#pods.get(uid)
      if (pod) void this.#end(pod)
    }
    for (const { set, name, node: nodeName } of plan.create) {
      const node = this.layout.nodes.find((one) => one.name === nodeName)!
      let slot: number
      try {
        slot = this.#slots.get(nodeName)!.take()
      } catch (error) {
        this.#tellOnce(`error: ${messageOf(error)}`)
        continue
      }
      const pod = new PodRunner(this.#world(), set, name, node, slot)
      this.#pods.set(pod.uid, pod)
      pod.start().catch((error: unknown) => {
        if (this.#ended) return
        this.options.tell(`error: pod ${set.namespace}/${name}: ${messageOf(error)}`)
        this.log.error({ pod: name, error: messageOf(error) }, 'a pod could not be started')
        void this.#end(pod)
      })
    }
  }

  async #end(pod: PodRunner): Promise<void> {
    try {
      await pod.end()
    } catch (error) {
      this.log.error({ pod: pod.name, error: messageOf(error) }, 'a pod could not be removed whole')
    }
    if (this.#ended) return
    this.#pods.delete(pod.uid)
    this.#slots.get(pod.node.name)?.free(pod.wire.slot)
    await this.#rewire(pod.node).catch(() => undefined)
    this.#changed()
  }

  /** Something about pods changed: others are told at the end of this turn, together with what else changes in it. */
  #changed(): void {
    if (this.#ended) return
    this.#publishing ??= setTimeout(() => {
      this.#publishing = undefined
      if (this.#ended) return
      this.#publish()
      this.#reconcile()
    }, 5)
  }

  #publish(): void {
    const pods = this.pods.filter((pod) => pod.plugged)
    const { objects } = this.paths
    this.#write(join(objects, 'nodes.yaml'), nodeObjects(this.layout.nodes))
    this.#write(join(objects, 'services.yaml'), serviceObjects(this.#services))
    this.#write(
      join(objects, 'pods.yaml'),
      podObjects(
        pods.map((pod) => ({
          uid: pod.uid,
          name: pod.name,
          namespace: pod.namespace,
          set: pod.set,
          node: pod.node,
          addresses: pod.addresses,
          ready: pod.ready,
          phase: pod.phase,
          startedAt: pod.startedAt,
        })),
      ),
    )
    this.#dns.update(dnsRecords(this.#services, pods, CLUSTER_DOMAIN))
    const rules = serviceRules(this.layout, virtualServices(this.#services, pods))
    for (const node of this.layout.nodes) this.#apply(node, 'services', rules)
  }

  #write(file: string, text: string): void {
    if (this.#written.get(file) === text) return
    this.#written.set(file, text)
    writeWhole(file, text, 0o600)
  }

  #apply(node: NodeLayout, what: string, rules: string): void {
    const key = `${node.name} ${what}`
    if (this.#written.get(key) === rules) return
    this.#written.set(key, rules)
    this.#queue(node, () => run('nft', ['-f', '-'], { input: rules, netns: node.netns })).catch((error: unknown) => {
      this.#written.delete(key)
      if (!this.#ended) this.log.error({ node: node.name, what, error: messageOf(error) }, 'rules not applied')
    })
  }

  #rewire(node: NodeLayout): Promise<void> {
    return this.#queue(node, async () => {
      const wires = this.pods.filter((pod) => pod.plugged && pod.node === node).map((pod) => pod.wire)
      await run('nft', ['-f', '-'], { input: guardRules(node, wires), netns: node.netns })
    })
  }

  /** One change of a node's rules after the other, in order. */
  #queue<T>(node: NodeLayout, task: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(node.name) ?? Promise.resolve()
    const next = before.catch(() => undefined).then(task)
    this.#queues.set(
      node.name,
      next.catch(() => undefined),
    )
    return next
  }

  /** Every pod that is wanted is there and ready; SANDBOX_NOT_READY names those that are not. */
  async #waitForPods(): Promise<void> {
    const end = performance.now() + this.options.readyMs
    for (;;) {
      if (this.#ended) return
      const waiting = this.pods.filter((pod) => !pod.ending && !pod.ready && pod.phase !== 'Succeeded')
      if (waiting.length === 0) return
      if (performance.now() > end)
        throw new AmbitError(
          'SANDBOX_NOT_READY',
          `not ready after ${Math.round(this.options.readyMs / 1000)} s: ${waiting.map((pod) => `${pod.namespace}/${pod.name} (${pod.phase})`).join(', ')}`,
          { hint: this.#lastWords(waiting[0]) },
        )
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  #lastWords(pod: PodRunner | undefined): string {
    for (const file of pod?.logFiles ?? []) {
      if (!existsSync(file)) continue
      const lines = readFileSync(file, 'utf8').trim().split('\n').slice(-3)
      if (lines[0]) return `The last lines of its log: ${lines.join(' | ')}`
    }
    return 'It has not started: no agent took it in (see the agents’ logs).'
  }

  /** What the issue calls status. Asks the agents who is enrolled now. */
  async status(): Promise<Status> {
    await this.#askAgents()
    return {
      nodes: this.layout.nodes.map((node) => ({
        name: node.name,
        netns: join(NETNS_ROOT, node.netns),
        cgroup: node.cgroup,
        agentPid: this.#agents.get(node.name)?.pid ?? null,
        metricsUrl: metricsUrl(node),
        adminSocket: this.paths.node(node.name).admin,
      })),
      pods: this.pods
        .filter((pod) => pod.plugged && !pod.ending)
        .map((pod) => ({
          namespace: pod.namespace,
          name: pod.name,
          ips: pod.addresses,
          node: pod.node.name,
          netns: pod.netnsPath,
          pid: pod.pid ?? null,
          enrolled: pod.enrolled,
        })),
    }
  }

  #askAgents(): Promise<void> {
    if (!this.options.mesh) return Promise.resolve()
    const now = performance.now()
    if (now - this.#agentLists.at < 100) return this.#agentLists.lists
    const lists = Promise.all(
      this.layout.nodes.map(async (node) => {
        try {
          const answer = await askAgent(this.paths.node(node.name).socket, { op: 'list' }, AGENT_LIST_MS)
          const enrolled = new Map((answer.pods ?? []).map((pod) => [pod.uid, pod.enrolled]))
          for (const pod of this.#pods.values()) if (pod.node === node) pod.noteEnrolled(enrolled.get(pod.uid) ?? false)
        } catch {
          // The agent is away: what it said last stands, the kernel holds it.
        }
      }),
    ).then(() => undefined)
    this.#agentLists = { at: now, lists }
    return lists
  }

  /** Pids of the programs, by name. */
  programs(): Record<string, number | undefined> {
    const found: Record<string, number | undefined> = { control: this.#control?.pid }
    for (const [name, keeper] of this.#agents) found[`agent-${name}`] = keeper.pid
    for (const [name, keeper] of this.#holders) found[`holder-${name}`] = keeper.pid
    return found
  }

  /**
   * The pod somebody means: `name`, `namespace/name`, or the name of a Deployment or a `Deployment`'s app label (its first
   * ready pod). Throws SANDBOX_NO_POD or SANDBOX_POD_AMBIGUOUS.
   */
  find(text: string): PodRunner {
    const [namespace, wanted] = text.includes('/') ? text.split('/', 2) : [undefined, text]
    const pods = this.pods.filter((pod) => !pod.ending && (namespace === undefined || pod.namespace === namespace))
    const byName = pods.filter((pod) => pod.name === wanted)
    const bySet = pods.filter((pod) => pod.set.name === wanted)
    const byApp = pods.filter((pod) => pod.set.labels['app'] === wanted)
    const found = [byName, bySet, byApp].find((list) => list.length > 0) ?? []
    const namespaces = new Set(found.map((pod) => pod.namespace))
    if (namespaces.size > 1)
      throw new AmbitError('SANDBOX_POD_AMBIGUOUS', `'${text}' is in the namespaces ${[...namespaces].join(' and ')}`, {
        hint: 'Write namespace/name.',
      })
    const best = found.find((pod) => pod.ready) ?? found[0]
    if (!best)
      throw new AmbitError('SANDBOX_NO_POD', `there is no pod '${text}'`, {
        hint: `There are: ${this.pods.map((pod) => `${pod.namespace}/${pod.name}`).join(', ') || 'none'}.`,
      })
    return best
  }

  /** Ends everything and removes what it made. Returns what could not be removed; a second call waits for the first. */
  down(): Promise<string[]> {
    this.#down ??= this.#remove()
    return this.#down
  }

  async #remove(): Promise<string[]> {
    this.#ended = true
    for (const stop of this.#stops) stop()
    if (this.#publishing) clearTimeout(this.#publishing)
    this.#dns.stop()
    this.#control?.abandon()
    for (const agent of this.#agents.values()) agent.abandon()
    for (const holder of this.#holders.values()) holder.abandon()
    for (const pod of this.#pods.values()) pod.abandon()
    return sweep(this.options.name)
  }
}
