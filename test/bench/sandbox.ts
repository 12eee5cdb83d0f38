// A sandbox that a suite measures in: brought up for it, its agents pinned each to its end's core, tools run in its pods, taken down
// whatever happens. Must not live here: what is measured (mesh.ts, tunnel.ts).
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseCpuStat } from './programs.ts'

const ambit = fileURLToPath(new URL('../../agent/bin/ambit', import.meta.url))
const world = fileURLToPath(new URL('world', import.meta.url))

interface Status {
  readonly nodes: readonly {
    name: string
    agentPid: number
    cgroup: string
    metricsUrl: string
    adminSocket: string
  }[]
  readonly pods: readonly { namespace: string; name: string; ips: readonly string[]; pid: number }[]
}

const UP_MS = 180_000
const STATUS_MS = 20_000

export class BenchSandbox {
  readonly #name: string
  readonly #status: Status

  private constructor(name: string, status: Status) {
    this.#name = name
    this.#status = status
  }

  /** Runs `task` in a fresh sandbox, of two nodes and the world of the bench by default: node-1 on core 0, node-2 on core 1. */
  static async with<T>(
    name: string,
    task: (sandbox: BenchSandbox) => Promise<T>,
    given: { readonly world?: string; readonly nodes?: number } = {},
  ): Promise<T> {
    const down = (): void => void spawnSync(ambit, ['sandbox', 'down', '--name', name], { encoding: 'utf8' })
    down()
    try {
      const nodes = String(given.nodes ?? 2)
      run(['up', given.world ?? world, '--detach', '--name', name, '--nodes', nodes], UP_MS)
      const status = JSON.parse(run(['status', '--name', name, '-o', 'json'], STATUS_MS)) as Status
      for (const node of status.nodes) pin(node.agentPid, node.name === 'node-1' ? 0 : 1)
      for (const pod of status.pods) if (pod.name.startsWith('waypoint')) pin(pod.pid, 1)
      return await task(new BenchSandbox(name, status))
    } finally {
      down()
    }
  }

  /** First address of the pod whose name begins so. */
  address(namespace: string, name: string): string {
    const ip = this.#status.pods.find((pod) => pod.namespace === namespace && pod.name.startsWith(name))?.ips[0]
    if (ip === undefined) throw new Error(`the pod ${namespace}/${name} has no address`)
    return ip
  }

  agentPid(node: string): number {
    return this.#node(node).agentPid
  }

  /** Where the node's agent serves its metrics. */
  metricsUrl(node: string): string {
    return this.#node(node).metricsUrl
  }

  /** Path of the agent's admin socket, in the node's folder of the sandbox. */
  adminSocket(node: string): string {
    return this.#node(node).adminSocket
  }

  #node(name: string): Status['nodes'][number] {
    const node = this.#status.nodes.find((one) => one.name === name)
    if (!node) throw new Error(`the sandbox has no node ${name}`)
    return node
  }

  /** CPU time that everything on a node has taken, its agent and all its pods, µs (cpu.stat of its cgroup). */
  cpuMicros(node: string): number {
    return parseCpuStat(readFileSync(join(this.#node(node).cgroup, 'cpu.stat'), 'utf8'))
  }

  /** Runs a command in a pod (`namespace/name`) on core 0; bounded in time, so that one stuck tool cannot hold the bench. */
  async inPod(pod: string, command: readonly string[], timeoutMs: number): Promise<string> {
    const child = spawn(ambit, ['sandbox', 'exec', '--name', this.#name, pod, '--', 'taskset', '-c', '0', ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
    clearTimeout(timer)
    if (code !== 0) throw new Error(`${command[0]} in ${pod} failed (${code}): ${(err || out).slice(-800)}`)
    return out
  }
}

function run(args: readonly string[], timeoutMs: number): string {
  const result = spawnSync(ambit, ['sandbox', ...args], { encoding: 'utf8', timeout: timeoutMs, maxBuffer: 64 << 20 })
  if (result.status !== 0) {
    throw new Error(
      `ambit sandbox ${args.slice(0, 4).join(' ')} failed (${result.status}): ${result.stderr.slice(-2_000)}`,
    )
  }
  return result.stdout
}

/** Every thread of a process, now; children made later inherit. */
function pin(pid: number, core: number): void {
  spawnSync('taskset', ['-a', '-c', '-p', String(core), String(pid)])
}
