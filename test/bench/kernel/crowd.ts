// What a real agent takes in a large mesh: a sandbox of one node, whose control plane is told of ten thousand pods on nodes that
// are not there. Must not live here: the tables alone (mesh.ts).
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { memoryOf } from '../programs.ts'
import { BenchSandbox } from '../sandbox.ts'

const world = fileURLToPath(new URL('world', import.meta.url))
const PODS = 10_000
const SERVICES = 1_000
const NODE = 'node-1'
const LIMIT_MS = 180_000
/** After the last write: what a full sync leaves behind is collected by then. */
const QUIET_MS = 15_000

export interface AgentSize {
  /** With its own two pods only. */
  readonly aloneMb: number
  readonly rssMb: number
  readonly peakMb: number
}

/** Of an agent with two captured pods that knows 10 000 workloads and 1 000 services. */
export async function measureAgent(say: (text: string) => void): Promise<AgentSize> {
  say('bringing a sandbox up for the agent')
  return await BenchSandbox.with(
    'bench-kernel',
    async (sandbox) => {
      const pid = sandbox.agentPid(NODE)
      const aloneMb = memoryOf(pid).rssMb
      say(`telling its control plane of ${PODS} pods`)
      // Where the sandbox writes what a cluster would know of its pods.
      writeFileSync(join(dirname(sandbox.adminSocket(NODE)), '../../objects/crowd.yaml'), crowd())
      const metrics = async (): Promise<string> => (await fetch(sandbox.metricsUrl(NODE))).text()
      const end = performance.now() + LIMIT_MS
      while (valueOf(await metrics(), 'ambit_kernel_rows_written_total{table="addresses"}') < PODS) {
        if (performance.now() > end) throw new Error('the agent never knew the whole mesh')
        await new Promise((resolve) => setTimeout(resolve, 500))
      }
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS))
      return { aloneMb, ...memoryOf(pid) }
    },
    { world, nodes: 1 },
  )
}

/** Of one line of a scrape; NaN if it is not there. */
function valueOf(text: string, series: string): number {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `))
  return line === undefined ? Number.NaN : Number(line.slice(series.length + 1))
}

/** JSON is YAML. */
function crowd(): string {
  const documents: object[] = []
  for (let i = 0; i < SERVICES; i++)
    documents.push({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: `service-${i}`, namespace: 'mesh' },
      spec: {
        clusterIP: `10.97.${i >> 8}.${i & 255}`,
        selector: { app: `app-${i}` },
        ports: [{ name: 'http', port: 80, targetPort: 8080 }],
      },
    })
  for (let i = 0; i < PODS; i++) {
    const podIP = `10.200.${i >> 8}.${i & 255}`
    documents.push({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: `pod-${i}`,
        namespace: 'mesh',
        uid: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
        labels: { app: `app-${i % SERVICES}`, version: 'v1' },
      },
      spec: {
        nodeName: `elsewhere-${i % 100}`,
        serviceAccountName: `app-${i % SERVICES}`,
        containers: [{ name: 'app', image: 'idle', ports: [{ containerPort: 8080 }] }],
      },
      status: { phase: 'Running', podIP, podIPs: [{ ip: podIP }], conditions: [{ type: 'Ready', status: 'True' }] },
    })
  }
  return documents.map((one) => JSON.stringify(one)).join('\n---\n')
}
