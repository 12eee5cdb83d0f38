// A real Prometheus (Debian's) with the configuration that is shipped, in a node's network. Debian builds it without the
// discovery of Kubernetes: a file gives it the targets instead, with the very labels that discovery would have given them, so
// that the shipped relabelling is what chooses and names them. Must not live here: expectations, queries (promql.ts).
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RULES } from './promql.ts'
import { eventually, root, run } from './sandbox.ts'

export const CONFIGURATION = join(root, 'deploy/prometheus/prometheus.yaml')

export interface PodLike {
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: {
    readonly nodeName?: string
    readonly containers: readonly {
      readonly name: string
      readonly ports?: readonly { readonly containerPort: number }[]
    }[]
  }
  readonly status: { readonly podIP?: string; readonly phase?: string }
}

export interface Target {
  readonly health: string
  readonly lastError: string
  readonly scrapeUrl: string
  readonly labels: Readonly<Record<string, string>>
}

export interface Result {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [number, string]
}

/** Discovery of role `pod`: a target for each port of each container, and one for a container without any. */
export function discovered(pods: readonly PodLike[]): { targets: string[]; labels: Record<string, string> }[] {
  const plain = (name: string): string => name.replaceAll(/[^a-zA-Z0-9_]/g, '_')
  return pods
    .filter((pod) => pod.status.podIP)
    .flatMap((pod) =>
      pod.spec.containers.flatMap((container) => {
        const { name, namespace, labels = {}, annotations = {} } = pod.metadata
        const meta: Record<string, string> = {
          namespace,
          pod_name: name,
          pod_ip: pod.status.podIP ?? '',
          pod_node_name: pod.spec.nodeName ?? '',
          pod_phase: pod.status.phase ?? '',
          pod_container_name: container.name,
        }
        for (const [key, value] of Object.entries(labels)) meta[`pod_label_${plain(key)}`] = value
        for (const [key, value] of Object.entries(annotations)) meta[`pod_annotation_${plain(key)}`] = value
        const all = Object.fromEntries(Object.entries(meta).map(([key, value]) => [`__meta_kubernetes_${key}`, value]))
        const ports = container.ports?.length ? container.ports.map((port) => `:${port.containerPort}`) : ['']
        return ports.map((port) => ({ targets: [`${pod.status.podIP}${port}`], labels: all }))
      }),
    )
}

export class Prometheus {
  readonly #folder: string
  readonly #netns: string
  readonly #child: ChildProcess

  private constructor(folder: string, netns: string, child: ChildProcess) {
    this.#folder = folder
    this.#netns = netns
    this.#child = child
  }

  /** Starts it in a network namespace of /run/netns, scraping every second; resolves when it answers. */
  static async start(netns: string): Promise<Prometheus> {
    const folder = mkdtempSync(join(tmpdir(), 'ambit-prometheus-'))
    let text = readFileSync(CONFIGURATION, 'utf8')
    for (const [shipped, here] of [
      ['kubernetes_sd_configs: [{ role: pod }]', `file_sd_configs: [{ files: [${folder}/pods.json] }]`],
      ['rule_files: [../chart/monitoring/rules.yaml]', `rule_files: [${RULES}]`],
      ['scrape_interval: 15s', 'scrape_interval: 1s'],
      ['evaluation_interval: 15s', 'evaluation_interval: 1s'],
    ] as const) {
      if (!text.includes(shipped)) throw new Error(`${CONFIGURATION} has no '${shipped}'`)
      text = text.replace(shipped, here)
    }
    writeFileSync(join(folder, 'prometheus.yaml'), text)
    writeFileSync(join(folder, 'pods.json'), '[]')
    const child = spawn(
      'nsenter',
      [
        `--net=/run/netns/${netns}`,
        '--',
        'prometheus',
        `--config.file=${folder}/prometheus.yaml`,
        `--storage.tsdb.path=${folder}/data`,
        '--web.listen-address=127.0.0.1:9090',
        '--log.level=warn',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)))
    const started = new Prometheus(folder, netns, child)
    try {
      await eventually(
        'Prometheus is ready',
        async () => {
          if (child.exitCode !== null) throw new Error(`Prometheus ended: ${said}`)
          return (await started.#get('/-/ready')).code === 0
        },
        30_000,
      )
      return started
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  /** Gives it the pods there are; it follows within a moment. */
  discover(pods: readonly PodLike[]): void {
    const file = join(this.#folder, 'pods.json')
    writeFileSync(`${file}.part`, JSON.stringify(discovered(pods)))
    renameSync(`${file}.part`, file)
  }

  /** `/api/v1/PATH`; throws what it answers when that is no success. */
  async api<T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    const { out, err } = await this.#get(`/api/v1/${path}`, parameters)
    const answer = JSON.parse(out || '{}') as { status?: string; error?: string; data: T }
    if (answer.status !== 'success') throw new Error(`${path}: ${answer.error ?? err}`)
    return answer.data
  }

  async query(expr: string): Promise<readonly Result[]> {
    return (await this.api<{ result: readonly Result[] }>('query', { query: expr })).result
  }

  async targets(): Promise<readonly Target[]> {
    return (await this.api<{ activeTargets: readonly Target[] }>('targets', { state: 'active' })).activeTargets
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGKILL')
      await once(this.#child, 'exit')
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }

  #get(path: string, parameters: Readonly<Record<string, string>> = {}): ReturnType<typeof run> {
    const fields = Object.entries(parameters).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
    const url = `http://127.0.0.1:9090${path}`
    return run([
      'nsenter',
      `--net=/run/netns/${this.#netns}`,
      '--',
      'curl',
      '-sf',
      '--max-time',
      '10',
      '-G',
      ...fields,
      url,
    ])
  }
}
