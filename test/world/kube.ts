// Real Kubernetes clusters for tests, and what one may leave behind. Must not live here: expectations.
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { KubeSandbox, type KubeStatus } from '../../agent/sandbox/kube/cluster.ts'
import { hierarchiesOf } from '../../agent/sandbox/kube/cgroups.ts'
import { DISK_ROOT } from '../../agent/sandbox/kube/layout.ts'
import { ambit, run, type Ran } from './sandbox.ts'

/** A machine where nothing was built yet builds for a quarter of an hour, longer when it is busy; `npm test` did it before. */
export const BUILD_MS = 45 * 60_000

/** Says what is waited for: without it a cold machine looks stuck. */
export function tell(line: string): void {
  process.stdout.write(`  ${line}\n`)
}

export interface Cluster {
  readonly sandbox: KubeSandbox
  kubectl(args: readonly string[], input?: string): Promise<Ran>
  close(): Promise<string[]>
}

/**
 * A cluster in this process; without nodes it is a control plane alone, which starts in a third of the time. With `image` its
 * nodes have the image of this checkout and those that the shop names.
 */
export async function openCluster(name: string, nodes: number, { image = false } = {}): Promise<Cluster> {
  const sandbox = await KubeSandbox.up({ name, nodes, image, tell, readyMs: 120_000 })
  return {
    sandbox,
    kubectl: (args, input) => kubectl(sandbox.kubectl, sandbox.layout.kubeconfig, args, input),
    close: () => sandbox.down(),
  }
}

/** A cluster in a process of its own, as the command makes it. */
export class DetachedCluster {
  readonly name: string
  /** Of when it had come up. */
  readonly status: KubeStatus
  /** What the command said. */
  readonly said: string

  private constructor(name: string, status: KubeStatus, said: string) {
    this.name = name
    this.status = status
    this.said = said
  }

  /** Brings one up, with a folder of manifests or flags. Throws with the command's words. */
  static async up(name: string, ...args: readonly string[]): Promise<DetachedCluster> {
    const since = performance.now()
    const up = await run(
      [ambit, 'sandbox', 'up', '--kubernetes', '--name', name, '--detach', '--timeout', '120', ...args],
      { timeoutMs: 180_000 },
    )
    tell(`up after ${((performance.now() - since) / 1000).toFixed(1)} s`)
    if (up.code !== 0) throw new Error(up.out + up.err)
    return new DetachedCluster(name, await statusOf(name), up.out + up.err)
  }

  /** As its links and namespaces have it. */
  get id(): number {
    return Number(/^ambit-(\d+)-/.exec(this.status.nodes[0]!.netns)![1])
  }

  now(): Promise<KubeStatus> {
    return statusOf(this.name)
  }

  kubectl(args: readonly string[], input?: string): Promise<Ran> {
    return kubectl(this.status.kubectl, this.status.kubeconfig, args, input)
  }

  /** Also when its process is gone. */
  down(): Promise<Ran> {
    return run([ambit, 'sandbox', 'down', '--name', this.name])
  }
}

async function statusOf(name: string): Promise<KubeStatus> {
  return JSON.parse((await run([ambit, 'sandbox', 'status', '--name', name, '-o', 'json'])).out) as KubeStatus
}

export function kubectl(program: string, kubeconfig: string, args: readonly string[], input?: string): Promise<Ran> {
  return run([program, `--kubeconfig=${kubeconfig}`, ...args], input === undefined ? {} : { input })
}

/** Everything on the machine that a cluster of this name and number could leave; others may run beside the test. */
export async function tracesOf(name: string, id: number): Promise<string[]> {
  const tag = `ambit-${id}`
  const links = (await run(['ip', '-o', 'link'])).out.split('\n').filter((line) => line.includes(`: ambit${id}@`))
  const spaces = existsSync('/run/netns') ? readdirSync('/run/netns').filter((one) => one.startsWith(`${tag}-`)) : []
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`${tag}-`) || line.includes(`/${name}/`))
  const folders = [
    ...hierarchiesOf().map((one) => `${one.path}/${tag}`),
    `${DISK_ROOT}/${name}`,
    `/run/ambit/${name}`,
  ].filter((path) => existsSync(path))
  const rules = (await run(['nft', 'list', 'tables'])).out.split('\n').filter((line) => line.includes('kube-proxy'))
  return [...links, ...spaces, ...mounts, ...folders, ...rules, ...processesOf(name)]
}

/** Processes that have to do with the cluster by their command line or their root. */
export function processesOf(name: string): string[] {
  const found: string[] = []
  for (const pid of readdirSync('/proc').filter((one) => /^\d+$/.test(one)))
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
      const mounts = readFileSync(`/proc/${pid}/mounts`, 'utf8')
      if (mounts.includes(`${DISK_ROOT}/${name}/`) || command.includes(`/run/ambit/${name}/`)) found.push(command)
    } catch {
      // It ended in between.
    }
  return found
}

/** Processes that have this word in their command line, wherever on the machine. */
export function processesWith(word: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(word)
      } catch {
        // It ended in between.
        return false
      }
    })
    .map(Number)
}

/** The processes of a pod's containers but for that which holds its namespaces. */
export function processesOfPod(uid: string): number[] {
  const names = [`pod${uid}`, `pod${uid.replaceAll('-', '_')}`]
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
        if (!names.some((name) => cgroup.includes(name))) return false
        return !readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('/pause')
      } catch {
        return false
      }
    })
    .map(Number)
}
