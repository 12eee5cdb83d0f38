// The programs of the mesh and the sandbox's own DNS: their flags, where they run, when they are ready. Must not live
// here: keeping them alive (keeper.ts), pods (pod-runner.ts).
import { spawn, type ChildProcess } from 'node:child_process'
import { openSync, closeSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { AmbitError } from '../base/errors.ts'
import { Keeper, type KeeperOptions } from './keeper.ts'
import type { Layout, NodeLayout } from './layout.ts'
import { makeCgroup } from './world/cgroup.ts'
import { programCommand } from './world/container.ts'
import type { Records } from './world/dns.ts'

export const CONTROL_PORT = 15012
const METRICS_PORT = 15020
const READY_PORT = 15021

/** Where things are inside a sandbox's folder. */
export interface Paths {
  readonly logs: string
  readonly objects: string
  readonly controlState: string
  readonly rootCert: string
  readonly controlAdmin: string
  readonly tokenKeys: string
  readonly socket: string
  node(name: string): { socket: string; admin: string; state: string; token: string; holder: string }
}

export function pathsOf(home: string): Paths {
  return {
    logs: join(home, 'logs'),
    objects: join(home, 'objects'),
    controlState: join(home, 'control'),
    rootCert: join(home, 'control', 'root-cert.pem'),
    controlAdmin: join(home, 'control-admin.sock'),
    tokenKeys: join(home, 'token-keys.json'),
    socket: join(home, 'sandbox.sock'),
    node: (name) => ({
      socket: join(home, 'nodes', name, 'agent.sock'),
      admin: join(home, 'nodes', name, 'admin.sock'),
      state: join(home, 'nodes', name, 'state'),
      token: join(home, 'nodes', name, 'token'),
      holder: join(home, 'nodes', name, 'holder.sock'),
    }),
  }
}

/** `host:port` of control on the fabric. */
export function controlAddress(layout: Layout): string {
  return `${layout.fabricAddress4}:${CONTROL_PORT}`
}

export function metricsUrl(node: NodeLayout): string {
  return `http://${node.address4}:${METRICS_PORT}/metrics`
}

type Ends = Pick<KeeperOptions, 'onEnded' | 'onStarted'>

export function controlKeeper(layout: Layout, ambit: string, configDirs: readonly string[], ends: Ends): Keeper {
  const paths = pathsOf(layout.home)
  const cgroup = join(layout.cgroup, 'fabric', 'control')
  makeCgroup(cgroup)
  return new Keeper({
    name: 'control',
    logFile: join(paths.logs, 'control.log'),
    restart: 'Always',
    forks: false,
    command: () =>
      programCommand(layout.fabricNetns, cgroup, [
        ambit,
        'control',
        ...configDirs.flatMap((dir) => ['--config-dir', dir]),
        '--listen',
        controlAddress(layout),
        '--state-dir',
        paths.controlState,
        '--token-keys',
        paths.tokenKeys,
        '--admin',
        `unix:${paths.controlAdmin}`,
        '--metrics',
        `${layout.fabricAddress4}:${METRICS_PORT}`,
      ]),
    ...ends,
  })
}

/** Keeps the pods' listeners while an agent is restarted; `program` is its executable. */
export function holderKeeper(layout: Layout, node: NodeLayout, program: string, ends: Ends): Keeper {
  const paths = pathsOf(layout.home)
  const cgroup = join(node.cgroup, 'holder')
  const { holder } = paths.node(node.name)
  makeCgroup(cgroup)
  mkdirSync(dirname(holder), { recursive: true, mode: 0o700 })
  return new Keeper({
    name: `holder-${node.name}`,
    logFile: join(paths.logs, `holder-${node.name}.log`),
    restart: 'Always',
    forks: false,
    command: () => programCommand(node.netns, cgroup, [program, holder]),
    ...ends,
  })
}

/** `generation`: each agent of a node has a cgroup of its own, as each pod of a DaemonSet has; two may overlap. */
export function agentKeeper(layout: Layout, node: NodeLayout, ambit: string, ends: Ends, generation = 0): Keeper {
  const paths = pathsOf(layout.home)
  const own = paths.node(node.name)
  const cgroup = join(node.cgroup, generation === 0 ? 'agent' : `agent-${generation}`)
  makeCgroup(cgroup)
  return new Keeper({
    name: `agent-${node.name}`,
    logFile: join(paths.logs, `agent-${node.name}.log`),
    restart: 'Always',
    forks: false,
    command: () =>
      programCommand(node.netns, cgroup, [
        ambit,
        'agent',
        '--node',
        node.name,
        '--control',
        controlAddress(layout),
        '--root-cert',
        paths.rootCert,
        '--token-file',
        own.token,
        '--cgroup',
        node.cgroup,
        '--pin-root',
        node.pinRoot,
        '--holder',
        own.holder,
        '--socket',
        own.socket,
        '--state-dir',
        own.state,
        '--metrics',
        `${node.address4}:${METRICS_PORT}`,
        '--ready',
        `${node.address4}:${READY_PORT}`,
        '--admin',
        `unix:${own.admin}`,
        '--kubelet-cgroup',
        node.kubeletCgroup,
      ]),
    ...ends,
  })
}

/** A program that ended so often before it was ready once will not become ready. */
const HOPELESS_RESTARTS = 3

/** Asks until `check` holds; throws SANDBOX_NOT_READY with the program's own last words when it cannot start, or takes too long. */
export async function waitFor(
  what: string,
  keeper: Keeper,
  check: () => Promise<boolean>,
  timeoutMs: number,
  stopped: () => boolean,
): Promise<void> {
  const end = performance.now() + timeoutMs
  while (!stopped()) {
    if (await check()) return
    const hopeless = keeper.restarts >= HOPELESS_RESTARTS
    if (hopeless || performance.now() > end)
      throw new AmbitError(
        'SANDBOX_NOT_READY',
        hopeless ? `${what} cannot start` : `${what} is not ready after ${Math.round(timeoutMs / 1000)} s`,
        { hint: lastWords(keeper.logFile) },
      )
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The last complaint in a log: of JSON lines the last error's text, else the last lines as they are. */
export function lastWords(logFile: string): string {
  if (!existsSync(logFile)) return 'It has written no log.'
  const lines = readFileSync(logFile, 'utf8').trim().split('\n').slice(-50)
  for (const line of lines.toReversed()) {
    if (!line.startsWith('{')) continue
    try {
      const entry = JSON.parse(line) as Record<string, unknown>
      if (!['error', 'fatal'].includes(String(entry['level']))) continue
      const { msg, error, err } = entry
      return `It says: ${[msg, error ?? err].filter((part) => typeof part === 'string').join(': ')}`
    } catch {
      // Cut off by a rotation.
    }
  }
  return `It says: ${lines.slice(-3).join(' | ')}`
}

/** Control is ready when it has written the root certificate and takes connections. */
export async function isControlReady(layout: Layout): Promise<boolean> {
  if (!existsSync(pathsOf(layout.home).rootCert)) return false
  return new Promise((resolve) => {
    const socket = connect({ host: layout.fabricAddress4, port: CONTROL_PORT, timeout: 1000 }, () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
    socket.on('timeout', () => {
      socket.destroy()
      resolve(false)
    })
  })
}

/** The holder is there once it listens. */
export function isHolderReady(layout: Layout, node: NodeLayout): Promise<boolean> {
  return Promise.resolve(existsSync(pathsOf(layout.home).node(node.name).holder))
}

/** An agent is ready when its own readiness says so: that of the newest, whoever has the port. */
export function isAgentReady(layout: Layout, node: NodeLayout): Promise<boolean> {
  return new Promise((resolve) => {
    const socketPath = pathsOf(layout.home).node(node.name).admin
    const outgoing = request({ socketPath, path: '/healthz/ready', agent: false, timeout: 1000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    outgoing.on('timeout', () => outgoing.destroy())
    outgoing.on('error', () => resolve(false))
    outgoing.end()
  })
}

/** Cluster DNS, fed through its standard input; it ends with the sandbox's process, however that ends. */
export class DnsProgram {
  readonly #layout: Layout
  readonly #ambit: string
  #child: ChildProcess | undefined
  #records: string
  #stopped = false

  constructor(layout: Layout, ambit: string, records: Records) {
    this.#layout = layout
    this.#ambit = ambit
    this.#records = JSON.stringify(records)
  }

  start(): void {
    const cgroup = join(this.#layout.cgroup, 'fabric', 'dns')
    makeCgroup(cgroup)
    const [command, ...args] = programCommand(this.#layout.fabricNetns, cgroup, [
      this.#ambit,
      'sandbox',
      'dns',
      this.#layout.dnsAddress4,
    ])
    const log = openSync(join(pathsOf(this.#layout.home).logs, 'dns.log'), 'a', 0o600)
    const child = spawn(command!, args, { stdio: ['pipe', log, log], detached: true })
    closeSync(log)
    child.stdin?.on('error', () => undefined)
    child.stdin?.write(`${this.#records}\n`)
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined
      if (!this.#stopped) setTimeout(() => this.start(), 500)
    })
    child.once('error', () => undefined)
    this.#child = child
  }

  update(records: Records): void {
    const text = JSON.stringify(records)
    if (text === this.#records) return
    this.#records = text
    this.#child?.stdin?.write(`${text}\n`)
  }

  stop(): void {
    this.#stopped = true
    this.#child?.stdin?.end()
  }
}
