// A steady load between pods of a real cluster: the same app and the same clients in a namespace of the mesh and in one outside,
// so that what is lost can be told apart from what the app loses by itself. Must not live here: what is done to the cluster
// meanwhile, expectations.
import { closeSync, openSync, readFileSync } from 'node:fs'
import type { LoadSummary } from '../../agent/sandbox/app/load.ts'
import { processesWith, type Cluster } from './kube.ts'
import { eventually } from './sandbox.ts'

/** Requests a second of each client. */
const RATE = 20
/** And how many it has under way at most. */
export const CONCURRENCY = 4
/** A slow machine is slow: only what never comes is lost. Seconds. */
const TIMEOUT = 30

export interface Client {
  readonly namespace: string
  readonly pod: string
  readonly container?: string
  readonly url: string
  readonly headers?: readonly string[]
  /** A connection for each request; else they are kept alive. */
  readonly close: boolean
}

/** Answers other than 200, and requests without one, by what they were. */
export function failuresOf(sums: readonly LoadSummary[]): Readonly<Record<string, number>> {
  const failures: Record<string, number> = {}
  for (const { codes, errors } of sums)
    for (const [what, count] of [...Object.entries(codes), ...Object.entries(errors)])
      if (what !== '200') failures[what] = (failures[what] ?? 0) + count
  return failures
}

export function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0)
}

/** Runs clients until `during` is over; their sums, in order. */
export async function underLoad(
  cluster: Cluster,
  clients: readonly Client[],
  during: () => Promise<unknown>,
): Promise<readonly LoadSummary[]> {
  const running = clients.map((client) => start(cluster, client))
  const ends = (): Promise<readonly LoadSummary[]> => Promise.all(running.map((one) => one.end()))
  try {
    await Promise.all(running.map((one) => one.begun))
    await during()
  } catch (error) {
    // What failed first is what counts.
    await ends().catch(() => undefined)
    throw error
  }
  return ends()
}

interface Running {
  /** It sends requests. */
  readonly begun: Promise<void>
  /** Has it stop; its sum. */
  end(): Promise<LoadSummary>
}

/** The load runs on in the pod when kubectl has gone: nothing of it needs the API server, the kubelet or containerd any more. */
const SCRIPT = `file=$1; ambit=$2; shift 2
"$ambit" app load "$@" </dev/null >"$file" 2>"$file.err" & load=$!
sleep 1
kill -0 $load || { cat "$file.err" >&2; exit 1; }`

let loads = 0

function start(cluster: Cluster, client: Client): Running {
  const { namespace, pod, container, url, headers = [], close } = client
  const file = `/tmp/load-${process.pid}-${++loads}`
  // The header makes the process one that is found.
  const mark = `x-load: ${file}`
  const begin = async (): Promise<{ pid: number; sum: number }> => {
    // prettier-ignore
    const ran = await cluster.kubectl([
      '-n', namespace, 'exec', pod, ...(container ? ['-c', container] : []), '--',
      'sh', '-c', SCRIPT, 'sh', file, '/opt/ambit/agent/bin/ambit', url,
      '-r', String(RATE), '-c', String(CONCURRENCY), '-d', '3600', '--timeout', String(TIMEOUT),
      ...[mark, ...headers].flatMap((header) => ['-H', header]), ...(close ? ['--close'] : []),
    ])
    const pid = processesWith(mark)[0]
    if (ran.code !== 0 || pid === undefined)
      throw new Error(`the load in ${namespace}/${pod} did not begin: ${ran.out} ${ran.err}`)
    // Opened now: when the process is gone so is the way to its files.
    return { pid, sum: openSync(`/proc/${pid}/root${file}`, 'r') }
  }
  const running = begin()
  return {
    begun: running.then(() => undefined),
    end: async () => {
      const { pid, sum } = await running
      // What has ended already is told apart below: it wrote nothing, or not all.
      if (processesWith(mark).includes(pid)) process.kill(pid, 'SIGTERM')
      // Of one that has ended and that nobody waits for, the command line is empty.
      await eventually('the load has ended', () => !processesWith(mark).includes(pid), (TIMEOUT + 5) * 1_000)
      try {
        return JSON.parse(readFileSync(sum, 'utf8')) as LoadSummary
      } catch (error) {
        throw new Error(`the load in ${namespace}/${pod} ended without a sum`, { cause: error })
      } finally {
        closeSync(sum)
      }
    },
  }
}

/** The app, behind a service `app`, and a pod `load` on node-1 for its clients. */
export function appAndClient(namespace: string, labels: Readonly<Record<string, string>>, replicas: number): string {
  const image = 'ambit.local/ambit:0.1.0'
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace, labels } },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'app', namespace },
        spec: { selector: { app: 'app' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
      },
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'app', namespace },
        spec: {
          replicas,
          selector: { matchLabels: { app: 'app' } },
          strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
          template: {
            metadata: { labels: { app: 'app' } },
            spec: {
              topologySpreadConstraints: [
                {
                  maxSkew: 1,
                  topologyKey: 'kubernetes.io/hostname',
                  whenUnsatisfiable: 'ScheduleAnyway',
                  labelSelector: { matchLabels: { app: 'app' } },
                  matchLabelKeys: ['pod-template-hash'],
                },
              ],
              containers: [
                {
                  name: 'app',
                  image,
                  args: ['app', 'echo'],
                  // What every app that wants to lose nothing does: kube-proxy needs a moment to hear that it leaves.
                  lifecycle: { preStop: { sleep: { seconds: 4 } } },
                  readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1, timeoutSeconds: 5 },
                  resources: { requests: { cpu: '1m', memory: '32Mi' } },
                },
              ],
            },
          },
        },
      },
      {
        apiVersion: 'policy/v1',
        kind: 'PodDisruptionBudget',
        metadata: { name: 'app', namespace },
        spec: { selector: { matchLabels: { app: 'app' } }, maxUnavailable: 1 },
      },
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'load', namespace },
        spec: {
          nodeName: 'node-1',
          terminationGracePeriodSeconds: 0,
          containers: [{ name: 'load', image, command: ['sleep', 'infinity'] }],
        },
      },
    ],
  })
}

export function waypointGateway(namespace: string, name: string): string {
  return JSON.stringify({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name, namespace },
    spec: { gatewayClassName: 'ambit-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  })
}
