// The suite `control`: the control plane on a real API server with 1 000 and with 10 000 pods, and a hundred agents connected. How
// long an edit takes to the last of them, what one pod's change sends, memory and processor. Must not live here: the cluster's
// objects (objects.ts), the agents (agents.ts).
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { KubeClient } from '../../../agent/kube/client.ts'
import { connect } from '../../../agent/kube/connection.ts'
import { startControl, type ControlProcess } from '../../world/control-process.ts'
import { agentToken, makeAgentAccount, meshRoots } from '../../world/kube-agents.ts'
import { openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, root, uniqueName } from '../../world/sandbox.ts'
import type { SuiteOptions } from '../main.ts'
import { cpuMs, memoryOf } from '../programs.ts'
import { Samples, type Report } from '../table.ts'
import { judge, type TargetSpec } from '../targets.ts'
import { Agents } from './agents.ts'
import { namespaceOf, Objects, podOf, PODS_A_SERVICE, serviceOf, uidOf } from './objects.ts'

const AGENTS = 100
const SIZES = [100, 1_000] as const
/** V8 takes half of a container's memory, here the chart's 1 GiB, for its heap; a machine's it would fill before it looks. */
const CONTAINER = { NODE_OPTIONS: '--max-old-space-size=512' }
/** Edits of each kind in a round. */
const EDITS = 10
/** Pods of a rollout that go away and come back. */
const ROLLOUT = 100

/** Over all sizes, so that each edit changes something. */
let edits = 0

const named = (services: number): string => `${(services * PODS_A_SERVICE).toLocaleString('en').replace(',', ' ')} pods`

const NOTES = [
  `A real API server, etcd and controllers without nodes; pods are API objects with the status that a kubelet would write, ${PODS_A_SERVICE} for each Service, in the mesh,`,
  `with a policy by selector in each of 20 namespaces. ${AGENTS} agents: delta xDS streams with a connection and a token of the API server each, in the bench's own process;`,
  'they acknowledge what comes and read only its envelope. Times are from before the request to the API server until the last agent has heard, on cores that all of this shares.',
  'Memory: RSS with the heap limit of a container of 1 GiB; some 90 MB of it are the library that reads a kubeconfig, which control in a pod does not load.',
] as const

const TARGETS: readonly TargetSpec[] = SIZES.flatMap((services) =>
  ['policy', 'pod', 'Service'].map((what) => ({
    row: `${named(services)}: ${what} edited → last agent`,
    baseline: '',
    limit: 200,
    atMost: true,
  })),
)

export async function benchControl(options: SuiteOptions): Promise<Report> {
  const { say } = options
  say('bringing a control plane up')
  const cluster = await openCluster(uniqueName(), 0)
  const client = new KubeClient(await connect({ kubeconfig: cluster.sandbox.layout.kubeconfig }))
  const objects = new Objects(client, AGENTS)
  try {
    return await measure(cluster, client, objects, options)
  } finally {
    objects.close()
    client.close()
    const left = await cluster.close()
    if (left.length > 0) say(`left behind: ${left.join(', ')}`)
  }
}

async function measure(
  cluster: Cluster,
  client: KubeClient,
  objects: Objects,
  { rounds, only, say }: SuiteOptions,
): Promise<Report> {
  await cluster.kubectl(['apply', '--server-side', '-f', join(root, 'deploy/chart/crds')])
  await cluster.kubectl(['wait', '--for=condition=Established', 'crd', '--all'])
  await makeAgentAccount(client)
  await objects.open()
  const samples = new Samples()
  for (const services of SIZES.filter((one) => only === undefined || named(one).includes(only))) {
    say(`making ${named(services)}`)
    await objects.grow(services)
    const bench = new ControlBench(client, objects, samples, named(services), services)
    try {
      say(`${named(services)}: control starts`)
      await bench.start(cluster.sandbox.layout.kubeconfig)
      for (let round = 1; round <= rounds; round++) {
        say(`${named(services)}: round ${round} of ${rounds}`)
        await bench.round()
      }
      await bench.finish()
    } finally {
      await bench.stop()
    }
  }
  const rows = samples.rows()
  return { rows, notes: NOTES, targets: judge(TARGETS, rows) }
}

/** One control and its agents, at one size. */
class ControlBench {
  readonly #client: KubeClient
  readonly #objects: Objects
  readonly #samples: Samples
  readonly #size: string
  readonly #services: number
  readonly #agents = new Agents()
  #control: ControlProcess | undefined

  constructor(client: KubeClient, objects: Objects, samples: Samples, size: string, services: number) {
    this.#client = client
    this.#objects = objects
    this.#samples = samples
    this.#size = size
    this.#services = services
  }

  async start(kubeconfig: string): Promise<void> {
    const tokens = new Map<string, string>()
    for (const node of this.#objects.nodes) tokens.set(node, await agentToken(this.#client, node))
    // Chosen here: the dump that would say it is 20 MB in the memory that is measured.
    const listen = await freeAddress()
    const began = performance.now()
    const control = (this.#control = startControl(kubeconfig, ['--log-level', 'warn', '--listen', listen], CONTAINER))
    await eventually('control is ready', async () => (await control.admin('/healthz/ready')).status === 200, 120_000)
    this.#add('start → ready', performance.now() - began, 'ms')
    this.#add('CPU of the start', this.#cpu(), 'ms')
    this.#add('memory without agents', this.#memory(), 'MB')
    const before = this.#cpu()
    const roots = await meshRoots(this.#client)
    const ms = await this.#agents.open(listen, roots, tokens)
    this.#add(`${AGENTS} agents connect and have all`, ms, 'ms')
    this.#add(`CPU of ${AGENTS} first answers`, this.#cpu() - before, 'ms')
    this.#add('bytes of a first answer', this.#agents.received.bytes / AGENTS, 'B')
  }

  async round(): Promise<void> {
    for (let at = 0; at < EDITS; at++) {
      const edit = edits++
      // Far apart, so that nothing that is kept of the last one helps.
      const service = (edit * 37) % this.#services
      const pod = service * PODS_A_SERVICE + (edit % PODS_A_SERVICE)
      const namespace = namespaceOf(service)
      await this.#edit('policy', [`${namespace}/bench`], () => this.#objects.policy(namespace, `client-${edit}`))
      // Its readiness, back and forth; the EndpointSlice follows, and says the same.
      for (const ready of [false, true])
        await this.#edit('pod', [uidOf(podOf(pod))], () => this.#objects.ready(pod, ready))
      const { name } = serviceOf(service)
      await this.#edit('Service', [`${namespace}/${name}.${namespace}.svc.cluster.local`], () =>
        this.#objects.service(service, 8_000 + edit),
      )
    }
    await this.#rollout()
  }

  async finish(): Promise<void> {
    await this.#calm()
    this.#add(`memory with ${AGENTS} agents`, this.#memory(), 'MB')
    const [before, began] = [this.#cpu(), performance.now()]
    await new Promise((resolve) => setTimeout(resolve, 5_000))
    this.#add('idle CPU', (100 * (this.#cpu() - before)) / (performance.now() - began), '%')
    if (this.#agents.ended.length > 0) throw new Error(`streams ended: ${this.#agents.ended.slice(0, 3).join('; ')}`)
  }

  async stop(): Promise<void> {
    this.#agents.close()
    await this.#control?.stop()
  }

  async #edit(what: string, names: readonly string[], edit: () => Promise<void>): Promise<void> {
    // What the edit before set off in the cluster's own controllers is over.
    await this.#quiet()
    const { bytes, resources } = { ...this.#agents.received }
    const before = this.#cpu()
    const heard = this.#agents.heard(names)
    await edit()
    this.#add(`${what} edited → last agent`, await heard, 'ms')
    await this.#quiet()
    this.#add(`${what} edited: CPU`, this.#cpu() - before, 'ms')
    this.#add(`${what} edited: bytes an agent`, (this.#agents.received.bytes - bytes) / AGENTS, 'B')
    this.#add(`${what} edited: resources an agent`, (this.#agents.received.resources - resources) / AGENTS, '')
  }

  /** Many pods change, as fast as the API server takes it. */
  async #rollout(): Promise<void> {
    const pods = Array.from({ length: ROLLOUT }, (_, at) => (at * 7) % (this.#services * PODS_A_SERVICE))
    const { bytes } = { ...this.#agents.received }
    const [before, began] = [this.#cpu(), performance.now()]
    for (const ready of [false, true]) {
      const heard = this.#agents.heard(pods.map((pod) => uidOf(podOf(pod))))
      await Promise.all(pods.map((pod) => this.#objects.ready(pod, ready)))
      await heard
    }
    const ms = performance.now() - began
    await this.#quiet()
    const changes = 2 * ROLLOUT
    this.#add(`${changes} pod changes → last agent`, ms, 'ms')
    this.#add(`${changes} pod changes: CPU`, this.#cpu() - before, 'ms')
    this.#add(`${changes} pod changes: bytes an agent`, (this.#agents.received.bytes - bytes) / AGENTS, 'B')
  }

  /** Nothing came for a while. */
  async #quiet(): Promise<void> {
    for (let last = -1; last !== this.#agents.received.bytes;) {
      last = this.#agents.received.bytes
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
  }

  /** The cluster's controllers write EndpointSlices for a while after a rollout, which says nothing new. */
  async #calm(): Promise<void> {
    for (let last = -1, now = 0; last !== now;) {
      last = now
      await new Promise((resolve) => setTimeout(resolve, 3_000))
      const { text } = await this.#control!.admin('/metrics')
      now = Number(/^ambit_control_translations_total (\d+)/m.exec(text)?.[1])
    }
  }

  #cpu(): number {
    return cpuMs(this.#control!.child.pid!)
  }

  #memory(): number {
    return memoryOf(this.#control!.child.pid!).rssMb
  }

  #add(what: string, value: number, unit: string): void {
    this.#samples.add(`${this.#size}: ${what}`, value, unit, '')
  }
}

function freeAddress(): Promise<string> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(`127.0.0.1:${port}`))
    })
  })
}
