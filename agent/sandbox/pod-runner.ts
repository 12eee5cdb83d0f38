// One pod from its wire to its end: plugged in, enrolled, started, watched, stopped. Must not live here: which pods there
// are (cluster/plan.ts), what others learn of it (sandbox.ts publishes).
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmodSync, chownSync, copyFileSync, mkdirSync, realpathSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { WAYPOINT_ROOT_CERT, WAYPOINT_TOKEN } from '../config/waypoint.ts'
import { askAgent } from './agent-client.ts'
import { containerRun, type ContainerRun } from './cluster/container-command.ts'
import type { PodSet, ServiceWish } from './cluster/desired.ts'
import { Keeper } from './keeper.ts'
import { CLUSTER_DOMAIN, podAddresses, type Layout, type NodeLayout } from './layout.ts'
import { listeningPorts, probeOf, type ProbeSpec } from './readiness.ts'
import { makeCgroup, killCgroup, removeCgroup } from './world/cgroup.ts'
import { containerCommand, execCommand, programCommand, type Bind } from './world/container.ts'
import type { Journal } from './world/journal.ts'
import { plugPod, unplugPod, type PodWire } from './world/network.ts'
import { NETNS_ROOT } from './world/run.ts'
import type { TokenIssuer } from './tokens.ts'

/** What pods share. */
export interface PodWorld {
  readonly layout: Layout
  readonly journal: Journal
  readonly log: Logger
  /** A line for the person who started the sandbox. */
  readonly tell: (line: string) => void
  readonly images: () => ReadonlyMap<string, readonly string[]>
  readonly services: () => readonly ServiceWish[]
  /** The agent's socket of a node; undefined without a mesh. */
  readonly agentSocket: ((node: NodeLayout) => string) | undefined
  /** Set when there is a mesh: what waypoints get. */
  readonly tokens: TokenIssuer | undefined
  readonly rootCertFile: string
  /** Folders of the machine that every container sees, read-only. */
  readonly shared: readonly string[]
  readonly path: string
  /** The pod's state changed: addresses, readiness, phase. */
  readonly changed: () => void
  /** The wires of a node changed: the guard rules must follow before traffic can flow. */
  readonly rewire: (node: NodeLayout) => Promise<void>
  readonly probeCommand: (ask: ProbeSpec, host: string) => readonly string[]
}

interface RunningContainer {
  readonly name: string
  readonly keeper: Keeper
  readonly run: ContainerRun
  readonly probe: ProbeSpec | undefined
  running: boolean
  ready: boolean
  succeeded: boolean | undefined
}

/** Between looks at a pod that is not ready yet, and how often enrolment is tried again, in milliseconds. */
const EAGER_MS = 100
const ENROL_RETRY_MS = 250
const AGENT_TIMEOUT_MS = 10_000
/** Between the moment a pod stops being an endpoint and its SIGTERM: others must have heard of it. */
const FAREWELL_MS = 500
const DEFAULT_GRACE_S = 30

let ages = 0

export class PodRunner {
  readonly uid = randomUUID()
  readonly age = ages++
  readonly startedAt = Date.now()
  readonly wire: PodWire
  readonly addresses: readonly string[]
  readonly cgroup: string
  readonly folder: string
  readonly logFiles: string[] = []
  readonly set: PodSet
  readonly name: string
  readonly node: NodeLayout
  readonly #world: PodWorld
  readonly #containers: RunningContainer[] = []
  #plugged = false
  #ending = false
  #gone = false
  #enrolled = false
  #ready = false

  constructor(world: PodWorld, set: PodSet, name: string, node: NodeLayout, slot: number) {
    this.#world = world
    this.set = set
    this.name = name
    this.node = node
    const { v4, v6 } = podAddresses(node, slot)
    this.addresses = [v4, v6]
    // A namespace's name is a file's: the uid's first part makes it unique over a pod that comes back.
    const short = `${set.namespace}-${name}`.slice(0, 120)
    this.wire = { slot, netns: `${world.layout.tag}-${short}-${this.uid.slice(0, 8)}`, v4, v6 }
    this.cgroup = join(node.cgroup, 'pods', this.uid)
    this.folder = join(world.layout.home, 'pods', this.uid)
  }

  get namespace(): string {
    return this.set.namespace
  }

  /** The address exists: the pod may be told to others. */
  get plugged(): boolean {
    return this.#plugged && !this.#gone
  }

  get ending(): boolean {
    return this.#ending
  }

  get ready(): boolean {
    return this.#ready && !this.#ending
  }

  get enrolled(): boolean {
    return this.#enrolled
  }

  /** First process of the first container, seen from the machine. */
  get pid(): number | undefined {
    return this.#containers[0]?.keeper.pid
  }

  get netnsPath(): string {
    return `${NETNS_ROOT}/${this.wire.netns}`
  }

  get phase(): 'Pending' | 'Running' | 'Succeeded' | 'Failed' {
    if (this.#containers.length === 0) return 'Pending'
    if (this.#containers.every((one) => one.succeeded !== undefined))
      return this.#containers.every((one) => one.succeeded) ? 'Succeeded' : 'Failed'
    return this.#containers.every((one) => one.running || one.keeper.restarts > 0) ? 'Running' : 'Pending'
  }

  /** Wires, enrols and starts it; keeps trying what can succeed later. Resolves when the containers are started or the pod ends. */
  async start(): Promise<void> {
    const { log } = this.#world
    const about = { namespace: this.namespace, pod: this.name, node: this.node.name }
    makeCgroup(this.cgroup)
    await plugPod(this.node, this.wire, this.#world.journal)
    this.#plugged = true
    await this.#world.rewire(this.node)
    this.#world.changed()
    await this.#enrol()
    if (this.#ending) return
    await this.#startContainers()
    log.info({ ...about, ips: this.addresses, enrolled: this.#enrolled }, 'pod started')
    void this.#watch()
  }

  async #enrol(): Promise<void> {
    const socket = this.#world.agentSocket?.(this.node)
    if (!socket) return
    let told = ''
    while (!this.#ending) {
      try {
        const answer = await askAgent(
          socket,
          {
            op: 'add',
            uid: this.uid,
            namespace: this.namespace,
            name: this.name,
            netns: this.netnsPath,
            addresses: this.addresses,
          },
          AGENT_TIMEOUT_MS,
        )
        // No agent says "out" of a pod it knows nothing of: the container starts only after a decision.
        if (answer.ok && answer.phase !== 'unknown' && answer.phase !== 'pending') {
          this.#enrolled = answer.enrolled === true
          return
        }
        told = this.#complain(answer.message ?? answer.reason ?? `phase ${answer.phase}`, told)
      } catch (error) {
        told = this.#complain(messageOf(error), told)
      }
      await sleep(ENROL_RETRY_MS)
    }
  }

  #complain(message: string, told: string): string {
    if (message !== told)
      this.#world.log.warn({ namespace: this.namespace, pod: this.name, message }, 'not enrolled yet, trying again')
    return message
  }

  /** What the agent says now (it follows labels both ways). */
  noteEnrolled(enrolled: boolean): void {
    this.#enrolled = enrolled
  }

  async #startContainers(): Promise<void> {
    const { layout } = this.#world
    const binds = this.#world.shared.map((source): Bind => ({ source, target: source, writable: false }))
    if (this.set.owner === 'Gateway') binds.push(...(await this.#waypointBinds()))
    const restart = this.set.spec['restartPolicy']
    for (const [index, container] of this.set.spec.containers.entries()) {
      const run = containerRun(
        this.set,
        index,
        {
          name: this.name,
          namespace: this.namespace,
          uid: this.uid,
          node: this.node.name,
          nodeAddress: this.node.address4,
          addresses: this.addresses,
        },
        this.#world.images(),
        this.#world.services(),
        this.#world.path,
      )
      if (run.unmapped)
        this.#world.tell(
          `image '${container.image ?? ''}' of ${this.namespace}/${this.set.name} is not in images.yaml: it runs 'ambit app echo'`,
        )
      const logFile = join(layout.home, 'logs', `pod_${this.namespace}_${this.name}_${container.name}.log`)
      this.logFiles.push(logFile)
      const probe = probeOf(container)
      const state: RunningContainer = {
        name: container.name,
        run,
        probe,
        running: false,
        ready: false,
        succeeded: undefined,
        keeper: new Keeper({
          name: `${this.namespace}/${this.name}/${container.name}`,
          logFile,
          forks: true,
          restart: restart === 'Never' || restart === 'OnFailure' ? restart : 'Always',
          command: () =>
            containerCommand({
              folder: join(this.folder, container.name),
              netns: this.wire.netns,
              cgroup: this.cgroup,
              hostname: this.#hostname(),
              command: run.command,
              environment: run.environment,
              workingDirectory: run.workingDirectory,
              ...(run.user ? { user: run.user } : {}),
              ...(run.capabilities ? { capabilities: run.capabilities } : {}),
              binds: [...binds, ...bindsOf(run.command)],
              resolvConf: resolvConf(layout, this.namespace),
              hosts: this.#hosts(),
            }),
          onStarted: () => {
            state.running = true
            this.#world.changed()
          },
          onEnded: (code, signal, again) => {
            state.running = false
            state.ready = false
            if (!this.#ending) {
              if (again === undefined) state.succeeded = code === 0
              this.#world.log.warn(
                { namespace: this.namespace, pod: this.name, container: container.name, code, signal, againMs: again },
                again === undefined ? 'container ended' : 'container ended and is started again',
              )
            }
            this.#setReady(false)
          },
        }),
      }
      this.#containers.push(state)
      state.keeper.start()
    }
  }

  #hostname(): string {
    const named = this.set.spec['hostname']
    return (typeof named === 'string' ? named : this.name).slice(0, 63)
  }

  #hosts(): string {
    const own = this.addresses.map((address) => `${address}\t${this.#hostname()}\n`).join('')
    return `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${own}`
  }

  /** The root certificate and a token of its own, in folders, so that a token can be replaced while it runs. */
  async #waypointBinds(): Promise<Bind[]> {
    const { tokens, rootCertFile } = this.#world
    if (!tokens) return []
    await this.refreshToken()
    const trust = join(this.folder, 'trust')
    mkdirSync(trust, { recursive: true })
    chmodSync(trust, 0o755)
    copyFileSync(rootCertFile, join(trust, 'root-cert.pem'))
    return [
      { source: realpathSync(trust), target: folderOf(WAYPOINT_ROOT_CERT), writable: false },
      { source: realpathSync(join(this.folder, 'token')), target: folderOf(WAYPOINT_TOKEN), writable: false },
    ]
  }

  /** Writes the waypoint's token anew; nothing for other pods. */
  async refreshToken(): Promise<void> {
    const { tokens } = this.#world
    if (!tokens || this.set.owner !== 'Gateway' || this.#ending) return
    const file = join(this.folder, 'token', 'istio-token')
    await tokens.write(file, {
      namespace: this.namespace,
      serviceAccount: this.set.serviceAccount,
      pod: { name: this.name, uid: this.uid },
      node: this.node.name,
    })
    // The folder is seen by the container's user; the machine's folders above it are root's alone.
    chmodSync(folderOf(file), 0o755)
    const security = this.set.spec['securityContext'] as { runAsUser?: number; runAsGroup?: number } | undefined
    if (security?.runAsUser !== undefined)
      chownSync(file, security.runAsUser, security.runAsGroup ?? security.runAsUser)
  }

  /** Follows readiness until the pod ends. */
  async #watch(): Promise<void> {
    const failures = new Map<RunningContainer, number>()
    const nextAt = new Map<RunningContainer, number>()
    const began = performance.now()
    while (!this.#ending) {
      for (const container of this.#containers) {
        if (!container.running) continue
        const { probe, keeper, run } = container
        if (!probe) {
          const ports = run.echo ? portsOf(run.environment['ECHO_PORTS'] ?? '') : []
          const open = ports.length > 0 && keeper.pid !== undefined ? listeningPorts(keeper.pid) : undefined
          container.ready ||= ports.every((port) => open?.has(port))
          continue
        }
        const now = performance.now()
        if (now < (nextAt.get(container) ?? began + probe.initialDelayMs)) continue
        // Until the first success a person waits for it: look every quarter of a second, not every period.
        const ok = await this.#probe(probe)
        nextAt.set(container, performance.now() + (container.ready ? probe.periodMs : Math.min(probe.periodMs, 250)))
        const failed = ok ? 0 : (failures.get(container) ?? 0) + 1
        failures.set(container, failed)
        if (ok) container.ready = true
        else if (failed >= probe.failureThreshold) container.ready = false
      }
      this.#setReady(this.#containers.length > 0 && this.#containers.every((one) => one.running && one.ready))
      await sleep(this.#ready ? EAGER_MS * 5 : EAGER_MS)
    }
  }

  #probe(spec: ProbeSpec): Promise<boolean> {
    const { netns, kubeletCgroup } = this.node
    const [command = '', ...args] = programCommand(netns, kubeletCgroup, this.#world.probeCommand(spec, this.wire.v4))
    return new Promise((resolve) => {
      const child = spawn(command, args, { stdio: 'ignore' })
      child.once('error', () => resolve(false))
      child.once('exit', (code) => resolve(code === 0))
    })
  }

  #setReady(ready: boolean): void {
    if (this.#ready === ready) return
    this.#ready = ready
    this.#world.changed()
  }

  /** The command line that runs a command in a container of this pod. */
  exec(command: readonly string[], container?: string, terminal?: string): string[] | undefined {
    const found = container ? this.#containers.find((one) => one.name === container) : this.#containers[0]
    const pid = found?.keeper.pid
    if (!found || pid === undefined) return undefined
    const { environment, user, capabilities } = found.run
    return execCommand(pid, this.cgroup, {
      command,
      environment: terminal ? { ...environment, TERM: terminal } : environment,
      workingDirectory: found.run.workingDirectory,
      ...(user ? { user } : {}),
      ...(capabilities ? { capabilities } : {}),
    })
  }

  /** The whole sandbox is removed: nothing of this pod is started or asked any more. */
  abandon(): void {
    this.#ending = true
    for (const one of this.#containers) one.keeper.abandon()
  }

  /** Ends it as Kubernetes does: out of the endpoints, SIGTERM, grace, SIGKILL; then everything it had goes. */
  async end(): Promise<void> {
    if (this.#ending) return
    this.#ending = true
    this.#world.changed()
    await sleep(FAREWELL_MS)
    const grace = this.set.spec['terminationGracePeriodSeconds']
    const graceMs = (typeof grace === 'number' ? grace : DEFAULT_GRACE_S) * 1000
    await Promise.all(this.#containers.map((one) => one.keeper.stop(graceMs)))
    await killCgroup(this.cgroup)
    const socket = this.#world.agentSocket?.(this.node)
    if (socket)
      await askAgent(socket, { op: 'del', uid: this.uid }, AGENT_TIMEOUT_MS).catch((error: unknown) =>
        this.#world.log.warn({ pod: this.name, message: messageOf(error) }, 'the agent could not forget the pod'),
      )
    this.#gone = true
    await unplugPod(this.node, this.wire)
    await removeCgroup(this.cgroup)
    rmSync(this.folder, { recursive: true, force: true })
    for (const file of this.logFiles) rmSync(file, { force: true })
    this.#world.changed()
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function folderOf(file: string): string {
  return file.slice(0, file.lastIndexOf('/'))
}

function portsOf(text: string): number[] {
  return text
    .split(',')
    .filter(Boolean)
    .map((part) => Number(part.slice(part.lastIndexOf(':') + 1)))
}

/** Files that a command names by absolute path and that the container would not see, since they lie in an emptied folder. */
function bindsOf(command: readonly string[]): Bind[] {
  const found = new Map<string, Bind>()
  for (const word of command)
    for (const [path] of word.matchAll(/\/(?:tmp|var\/tmp|root|home|mnt|media)\/[^\s'"`;|&<>()$:=,]+/g)) {
      try {
        found.set(path, { source: realpathSync(path), target: path, writable: false })
      } catch {
        // No file of the machine: the command will make it, or only looks like naming one.
      }
    }
  return [...found.values()]
}

function resolvConf(layout: Layout, namespace: string): string {
  const svc = `svc.${CLUSTER_DOMAIN}`
  return `nameserver ${layout.dnsAddress4}\nsearch ${namespace}.${svc} ${svc} ${CLUSTER_DOMAIN}\noptions ndots:5 timeout:2\n`
}
