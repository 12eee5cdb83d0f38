// A Kubernetes sandbox: a real two-node cluster on this machine, brought up and taken down. Must not live here: how a node is
// made (node.ts), the control plane (control-plane.ts), the command line (../main.ts).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { AmbitError } from '../../base/errors.ts'
import { openLog, type Logger } from '../../base/log.ts'
import { IMAGES_FILE } from '../../config/images.ts'
import { claim, sweep, type Claim } from '../claim.ts'
import type { Keeper, KeeperOptions } from '../keeper.ts'
import { layoutOf } from '../layout.ts'
import { keepLogsSmall } from '../logs.ts'
import { pathsOf, waitFor, type Paths } from '../programs.ts'
import { PROJECT } from '../sandbox.ts'
import { findCgroupRoot } from '../world/cgroup.ts'
import { buildNetwork } from '../world/network.ts'
import { hierarchiesOf, makeNodeCgroups, type Hierarchy } from './cgroups.ts'
import { askApi, controlPlane, writeCredentials } from './control-plane.ts'
import { kubeLayoutOf, type KubeLayout } from './layout.ts'
import { KubeNode, type Until } from './node.ts'
import { ensureBuilt, ensureImages, type Built, type Images } from './programs.ts'

export interface KubeOptions {
  readonly name: string
  /** None: a control plane alone, for whoever needs no pods. */
  readonly nodes: number
  /** Nodes get the image of this checkout and the images that the shop and `dir` name. */
  readonly image: boolean
  /** YAML to apply when all is up. */
  readonly dir?: string
  readonly tell: (line: string) => void
  /** How long it may take to become ready once everything is built, in milliseconds. */
  readonly readyMs: number
}

/** `ambit sandbox status -o json` of a Kubernetes sandbox. */
export interface KubeStatus {
  readonly kubeconfig: string
  readonly kubectl: string
  readonly helm: string
  readonly apiServer: string
  readonly nodes: readonly {
    readonly name: string
    readonly address: string
    readonly netns: string
    readonly pid: number | null
  }[]
  readonly programs: readonly { readonly name: string; readonly pid: number | null; readonly restarts: number }[]
}

export class KubeSandbox {
  readonly options: KubeOptions
  readonly layout: KubeLayout
  readonly paths: Paths
  readonly built: Built
  readonly log: Logger
  readonly nodes: readonly KubeNode[]
  /** What its nodes were given beside the images of the cluster itself. */
  readonly images: Images | undefined
  readonly #claim: Claim
  readonly #controlPlane: readonly Keeper[]
  readonly #hierarchies: readonly Hierarchy[]
  #stops: (() => void)[] = []
  #ended = false
  #down: Promise<string[]> | undefined
  #ready = false

  private constructor(options: KubeOptions, taken: Claim, built: Built, images: Images | undefined) {
    this.options = options
    this.built = built
    this.images = images
    this.#claim = taken
    this.layout = kubeLayoutOf(layoutOf(options.name, taken.id, options.nodes, findCgroupRoot()))
    this.paths = pathsOf(taken.home)
    mkdirSync(this.paths.logs, { recursive: true, mode: 0o700 })
    this.log = openLog({ program: 'sandbox', fd: openSync(join(this.paths.logs, 'sandbox.log'), 'a', 0o600) })
    this.#hierarchies = hierarchiesOf()
    const ends = (what: string): Pick<KeeperOptions, 'onEnded' | 'onStarted'> => ({
      onEnded: (code, signal, again) => {
        if (this.#ended) return
        this.log.error({ program: what, code, signal, againMs: again }, 'a program ended')
        options.tell(`${what} ended (${signal ?? `exit ${code}`})${again === undefined ? '' : ' and is started again'}`)
      },
      onStarted: (pid) => this.log.info({ program: what, pid }, 'a program started'),
    })
    this.#controlPlane = controlPlane(this.layout, built, this.paths.logs, ends)
    this.nodes = this.layout.nodes.map(
      (node) =>
        new KubeNode({ layout: this.layout, hierarchies: this.#hierarchies, built, logs: this.paths.logs, ends }, node),
    )
  }

  /**
   * Builds what is missing, then makes everything and resolves when nodes and DNS are ready. On failure nothing is left
   * behind. When `stopped` resolves first, what was made is removed and the sandbox is handed over as ended. Throws
   * SANDBOX_NEEDS_ROOT, SANDBOX_NOT_BUILT, SANDBOX_NOT_READY.
   */
  static async up(options: KubeOptions, stopped: Promise<void> = new Promise(() => undefined)): Promise<KubeSandbox> {
    if (process.getuid?.() !== 0)
      throw new AmbitError('SANDBOX_NEEDS_ROOT', 'the sandbox makes namespaces and mounts: it needs root', {
        hint: 'Run it with sudo.',
      })
    const built = await ensureBuilt(PROJECT, options.tell, stopped)
    const folders = [join(PROJECT, 'deploy/examples/shop'), ...(options.dir ? [options.dir] : [])]
    const images = options.image ? await ensureImages(PROJECT, folders, options.tell, stopped) : undefined
    const taken = await claim(options.name)
    let sandbox: KubeSandbox | undefined
    try {
      // Everything the constructor makes lies below these two.
      const layout = kubeLayoutOf(layoutOf(options.name, taken.id, options.nodes, findCgroupRoot()))
      taken.journal.record('folder', layout.disk)
      taken.journal.record('cgroup', layout.cgroup)
      sandbox = new KubeSandbox(options, taken, built, images)
      const ending = stopped.then(() => sandbox?.down()).then(() => undefined)
      const starting = sandbox.#start()
      await Promise.race([starting, ending])
      if (sandbox.ended) await starting.catch(() => undefined)
      return sandbox
    } catch (error) {
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

  get kubectl(): string {
    return join(this.built.programs, 'kubectl')
  }

  async #start(): Promise<void> {
    const { layout, options, images } = this
    if (images) for (const line of imageLines(images)) options.tell(line)
    const { journal } = this.#claim
    const began = performance.now()
    makeNodeCgroups(
      this.#hierarchies,
      layout.tag,
      layout.nodes.map((node) => node.name),
      journal,
    )
    await Promise.all([buildNetwork(layout, journal, false), writeCredentials(layout, PROJECT)])
    this.#stops.push(keepLogsSmall(this.paths.logs))
    if (this.#ended) return
    const [etcd, apiServer, ...controllers] = this.#controlPlane
    etcd!.start()
    apiServer!.start()
    const apiReady = async (): Promise<void> => {
      await this.#until('the API server', apiServer!, async () => (await askApi(layout, '/readyz')).status === 200)
      if (this.#ended) return
      options.tell(`API server ready after ${seconds(began)} s`)
      // They give up at once when it is not there.
      for (const controller of controllers) controller.start()
      if (this.nodes.length > 0) await this.#applyOwn()
    }
    await Promise.all([
      apiReady(),
      ...this.nodes.map(async (node) => {
        await node.enter((what, check) => this.#until(what, node.init, check))
        const until: Until = (what, check) => this.#until(what, node.programs[0]!, check)
        if (!this.#ended) await node.start(until, images?.archives ?? [])
      }),
    ])
    if (this.#ended) return
    await this.#untilReady()
    if (this.#ended) return
    options.tell(`${readyText(this.nodes.length)} ready after ${seconds(began)} s`)
    if (options.dir) await this.apply(options.dir)
    this.#ready = true
    this.log.info('ready')
  }

  async #until(what: string, keeper: Keeper, check: () => boolean | Promise<boolean>): Promise<void> {
    await waitFor(
      what,
      keeper,
      async () => {
        try {
          return await check()
        } catch {
          // Not there yet; waitFor ends the wait.
          return false
        }
      },
      this.options.readyMs,
      () => this.#ended,
    )
  }

  async #applyOwn(): Promise<void> {
    const text = readFileSync(join(PROJECT, 'deploy/kubernetes/manifests/dns.yaml'), 'utf8')
    await this.#kubectl(['apply', '-f', '-'], text.replaceAll('DNS_ADDRESS', this.layout.dnsServiceAddress))
  }

  async #untilReady(): Promise<void> {
    for (const node of this.nodes)
      await this.#until(`the node ${node.node.name}`, node.programs[1]!, async () => {
        const { body } = await askApi(this.layout, `/api/v1/nodes/${node.node.name}`)
        const { status } = JSON.parse(body) as { status?: { conditions?: { type: string; status: string }[] } }
        return status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True') ?? false
      })
    await this.#until(
      'the first service account',
      this.#controlPlane[1]!,
      async () => (await askApi(this.layout, '/api/v1/namespaces/default/serviceaccounts/default')).status === 200,
    )
    if (this.nodes.length === 0) return
    await this.#until('cluster DNS', this.nodes[0]!.programs[1]!, async () => {
      const { body } = await askApi(this.layout, '/apis/apps/v1/namespaces/kube-system/deployments/coredns')
      const { spec, status } = JSON.parse(body) as { spec: { replicas: number }; status: { readyReplicas?: number } }
      return status.readyReplicas === spec.replicas
    })
  }

  /** Applies a folder of YAML; what the cluster refuses is told, and the rest is applied. */
  async apply(dir: string): Promise<void> {
    const files = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter(
      (name) => /\.(ya?ml|json)$/.test(name) && !/(^|\/)\./.test(name) && basename(name) !== IMAGES_FILE,
    )
    if (files.length === 0) return
    try {
      await this.#kubectl(['apply', ...files.sort().flatMap((name) => ['-f', join(dir, name)])])
    } catch (error) {
      this.options.tell(`not all of ${dir} was applied: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  async #kubectl(args: readonly string[], input = ''): Promise<string> {
    const child = spawn(this.kubectl, [`--kubeconfig=${this.layout.kubeconfig}`, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: 60_000,
    })
    let out = ''
    let errors = ''
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
    const [code] = (await once(child, 'close')) as [number | null]
    if (code !== 0) throw new AmbitError('SANDBOX_TOOL_FAILED', `kubectl ${args.join(' ')} failed: ${errors.trim()}`)
    return out
  }

  status(): KubeStatus {
    const programs = [...this.#controlPlane, ...this.nodes.flatMap((node) => node.programs)]
    return {
      kubeconfig: this.layout.kubeconfig,
      kubectl: this.kubectl,
      helm: join(this.built.programs, 'helm'),
      apiServer: this.layout.apiUrl,
      nodes: this.nodes.map((node) => ({
        name: node.node.name,
        address: node.node.address4,
        netns: node.node.netns,
        pid: node.pid ?? null,
      })),
      programs: programs.map((one) => ({ name: one.name, pid: one.pid ?? null, restarts: one.restarts })),
    }
  }

  /** Ends every process and removes everything. Returns what could not be removed. */
  down(): Promise<string[]> {
    this.#ended = true
    return (this.#down ??= this.#remove())
  }

  async #remove(): Promise<string[]> {
    for (const stop of this.#stops) stop()
    for (const program of this.#controlPlane) program.abandon()
    for (const node of this.nodes) node.abandon()
    // Nothing in it is worth a farewell: the journal's removal kills all at once.
    return sweep(this.options.name)
  }
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1)
}

function imageLines(images: Images): string[] {
  const [bytes, compressed] = [images.bytes, images.compressed].map((count) => Math.round(count / 1e6))
  return [
    `image ${images.image}: ${bytes} MB, compressed ${compressed} MB`,
    `images of applications: ${images.apps.join(', ')}`,
  ]
}

function readyText(nodes: number): string {
  if (nodes === 0) return 'control plane'
  return nodes === 1 ? '1 node and DNS' : `${nodes} nodes and DNS`
}
