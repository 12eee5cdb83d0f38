// Ambit on a test's Kubernetes cluster: installed as people install it, asked what it knows, looked at from the nodes' side. Must
// not live here: expectations, the cluster itself (kube.ts).
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import type { KubeNode } from '../../agent/sandbox/kube/node.ts'
import type { AgentStatusReport, PodStatusReport } from '../../agent/node/observe/status.ts'
import type { Cluster } from './kube.ts'
import { eventually, root, run } from './sandbox.ts'
import { documents } from './yaml.ts'

/** Where the chart puts things on a node. */
const RUN = '/run/ambit'
const PINS = '/sys/fs/bpf/ambit'
export const SYSTEM_NAMESPACE = 'ambit-system'

export interface Load {
  readonly requests: number
  readonly codes: Readonly<Record<string, number>>
  readonly errors: Readonly<Record<string, number>>
}

/** A cluster with Ambit in it, or about to be. */
export class KubeMesh {
  readonly cluster: Cluster

  constructor(cluster: Cluster) {
    this.cluster = cluster
  }

  /** What kubectl prints; throws with its words. */
  async kubectl(args: string | readonly string[], input?: string): Promise<string> {
    const ran = await this.cluster.kubectl(typeof args === 'string' ? args.split(' ') : args, input)
    if (ran.code !== 0) throw new Error(`kubectl ${String(args)}: ${ran.err.trim()}`)
    return ran.out.trim()
  }

  async get<T>(args: string): Promise<T> {
    return JSON.parse(await this.kubectl(`get ${args} -o json`)) as T
  }

  async apply(...objects: readonly object[]): Promise<void> {
    await this.kubectl('apply -f -', documents(...objects.map((one) => JSON.stringify(one))))
  }

  /** Installs the chart of this checkout with the image of this checkout, and waits until all of it is ready. */
  async install(values: readonly string[] = []): Promise<void> {
    await this.#helm(['install', '--create-namespace'], ['image.repository=ambit.local/ambit', ...values])
    await this.rolledOut('deployment/ambit-control', 'daemonset/ambit-agent')
  }

  /** Upgrades to the chart of this checkout, with the values that are there and these; resolves when it has begun. */
  async upgrade(values: readonly string[]): Promise<void> {
    await this.#helm(['upgrade', '--reuse-values'], values)
  }

  async #helm([verb, ...flags]: readonly [string, ...string[]], values: readonly string[]): Promise<void> {
    const { sandbox } = this.cluster
    const chart = ['ambit', join(root, 'deploy/chart'), `--namespace=${SYSTEM_NAMESPACE}`]
    const ran = await run(
      [sandbox.status().helm, verb, ...chart, ...flags, ...values.flatMap((value) => ['--set', value])],
      { environment: { KUBECONFIG: sandbox.layout.kubeconfig } },
    )
    if (ran.code !== 0) throw new Error(`helm ${verb}: ${ran.err}`)
  }

  async rolledOut(...names: readonly string[]): Promise<void> {
    for (const name of names) await this.kubectl(`-n ${SYSTEM_NAMESPACE} rollout status ${name} --timeout=90s`)
  }

  node(name: string): KubeNode {
    const found = this.cluster.sandbox.nodes.find((one) => one.node.name === name)
    if (!found) throw new Error(`no node ${name}`)
    return found
  }

  /** Runs a shell script as a node would run it. */
  async onNode(name: string, script: string): Promise<string> {
    const ran = await run(this.node(name).command(['sh', '-c', script]))
    if (ran.code !== 0) throw new Error(`${name}: ${script}: ${ran.err.trim()}`)
    return ran.out
  }

  /** A path of a node as this machine has it. */
  pathOn(node: string, path: string): string {
    return `/proc/${this.node(node).pid}/root${path}`
  }

  /** What the agent of a node says of itself and its pods. */
  agent(node: string): Promise<AgentStatusReport> {
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: this.pathOn(node, `${RUN}/admin.sock`), path: '/status' }, (answer) => {
        let text = ''
        answer.setEncoding('utf8')
        answer.on('data', (chunk: string) => (text += chunk))
        answer.on('end', () => resolve(JSON.parse(text) as AgentStatusReport))
      })
      asked.on('error', reject)
      asked.setTimeout(2_000, () => asked.destroy(new Error('no answer')))
      asked.end()
    })
  }

  async podAt(node: string, namespace: string, name: string): Promise<PodStatusReport | undefined> {
    const { pods } = await this.agent(node)
    return pods.find((one) => one.namespace === namespace && one.name.startsWith(name))
  }

  /** Waits until the agent of the node says so of the pod whose name begins so. */
  async phase(node: string, pod: string, phase: string, ms = 20_000): Promise<PodStatusReport> {
    const [namespace, name] = pod.split('/') as [string, string]
    let last = 'nothing'
    try {
      return (await eventually(
        `${pod} is ${phase}`,
        async () => {
          const found = await this.podAt(node, namespace, name)
          last = found ? `${found.phase}: ${found.reason}` : 'nothing'
          return found?.phase === phase ? found : undefined
        },
        ms,
      ))!
    } catch (error) {
      throw new Error(`${(error as Error).message}, but ${last}`, { cause: error })
    }
  }

  /** What the node's kernel holds for pods: lookups and guards. */
  pinned(node: string): string[] {
    const pins = this.pathOn(node, PINS)
    if (!existsSync(pins)) return []
    return readdirSync(pins)
      .flatMap((schema) => ['pods', 'guards'].map((kind) => `${schema}/${kind}`))
      .filter((path) => existsSync(join(pins, path)))
      .flatMap((path) => readdirSync(join(pins, path)).map((name) => `${path}/${name}`))
  }

  /** The processes of a node whose command line has all these words. */
  processes(node: string, ...words: readonly string[]): number[] {
    const space = readlinkSync(`/proc/${this.node(node).pid}/ns/pid`)
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
          return words.every((word) => command.includes(word)) && readlinkSync(`/proc/${pid}/ns/pid`) === space
        } catch {
          return false
        }
      })
      .map(Number)
  }

  /** The agents that run on a node: shared with the node's processes, they are seen from here. */
  agents(node: string): number[] {
    return this.processes(node, 'agent', `--node=${node}`)
  }

  /** Runs a command in a container. */
  exec(pod: string, command: string): Promise<string> {
    const [namespace, name] = pod.split('/') as [string, string]
    return this.kubectl(['-n', namespace, 'exec', name, '--', 'sh', '-c', command])
  }

  /** Events that tell why a pod does not start. */
  async refusals(namespace: string, pod: string): Promise<string[]> {
    const selector = `involvedObject.name=${pod},reason=FailedCreatePodSandBox`
    const { items } = await this.get<{ items: { message: string }[] }>(
      `events -n ${namespace} --field-selector ${selector}`,
    )
    return items.map((one) => one.message)
  }
}
