// The suite `mesh`: no mesh, the mesh on one node and across nodes, a waypoint, and nginx and HAProxy doing the waypoint's
// job, all in one sandbox of two nodes. Rounds are interleaved over all rows; the client and its agent are on core 0, the server, its agent
// and whatever stands between on core 1. Must not live here: reading the tools' output (tools.ts).
import { spawn, spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { SuiteOptions } from './main.ts'
import { Samples, type Report } from './table.ts'
import { parseIperf, parseWrk } from './tools.ts'

const here = dirname(fileURLToPath(import.meta.url))
const ambit = join(here, '../../agent/bin/ambit')
const NAME = 'bench'

interface Status {
  readonly nodes: readonly { name: string; agentPid: number; cgroup: string }[]
  readonly pods: readonly { namespace: string; name: string; ips: readonly string[]; pid: number }[]
}

interface Path {
  /** Row prefix. */
  readonly name: string
  readonly client: string
  /** HOST:PORT of the HTTP server. */
  readonly http: string
  /** Host of an iperf3 server; absent: no throughput row (an HTTP proxy is in the way). */
  readonly iperf?: string
  /** Prefix of the rows to compare with; '' for a baseline. */
  readonly baseline: string
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

/** Runs a command in a pod; bounded in time, so that one stuck tool cannot hold the bench. */
async function inPod(pod: string, command: readonly string[], timeoutMs: number): Promise<string> {
  const child = spawn(ambit, ['sandbox', 'exec', '--name', NAME, pod, '--', 'taskset', '-c', '0', ...command], {
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

/** Every thread of a process, now; children made later inherit. */
function pin(pid: number, core: number): void {
  spawnSync('taskset', ['-a', '-c', '-p', String(core), String(pid)])
}

export async function benchMesh({ rounds, seconds, say }: SuiteOptions): Promise<Report> {
  say('bringing the world up')
  spawnSync(ambit, ['sandbox', 'down', '--name', NAME], { encoding: 'utf8' })
  run(['up', join(here, 'world'), '--detach', '--name', NAME, '--nodes', '2'], 180_000)
  try {
    const status = JSON.parse(run(['status', '--name', NAME, '-o', 'json'], 20_000)) as Status
    const samples = new Samples()
    const address = (namespace: string, name: string): string => {
      const ip = status.pods.find((pod) => pod.namespace === namespace && pod.name.startsWith(name))?.ips[0]
      if (!ip) throw new Error(`the pod ${namespace}/${name} has no address`)
      return ip
    }
    for (const node of status.nodes) pin(node.agentPid, node.name === 'node-1' ? 0 : 1)
    for (const pod of status.pods) if (pod.name.startsWith('waypoint')) pin(pod.pid, 1)
    const paths: readonly Path[] = [
      {
        name: 'no mesh, one node',
        client: 'plain/client',
        http: `${address('plain', 'near')}:8080`,
        iperf: address('plain', 'near'),
        baseline: '',
      },
      {
        name: 'no mesh, two nodes',
        client: 'plain/client',
        http: `${address('plain', 'far')}:8080`,
        iperf: address('plain', 'far'),
        baseline: '',
      },
      {
        name: 'mesh, one node',
        client: 'mesh/client',
        http: `${address('mesh', 'near')}:8080`,
        iperf: address('mesh', 'near'),
        baseline: 'no mesh, one node',
      },
      {
        name: 'mesh, two nodes',
        client: 'mesh/client',
        http: `${address('mesh', 'far')}:8080`,
        iperf: address('mesh', 'far'),
        baseline: 'no mesh, two nodes',
      },
      {
        name: 'nginx as proxy',
        client: 'plain/client',
        http: `${address('plain', 'nginx')}:8081`,
        baseline: 'no mesh, two nodes',
      },
      {
        name: 'HAProxy as proxy',
        client: 'plain/client',
        http: `${address('plain', 'haproxy')}:8082`,
        baseline: 'no mesh, two nodes',
      },
      {
        name: 'waypoint',
        client: 'mesh/client',
        http: 'my-service.way.svc.cluster.local:80',
        baseline: 'nginx as proxy',
      },
    ]
    for (const path of paths) await warm(path)
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`)
      for (const path of paths) await measure(path, seconds, samples)
    }
    return { rows: samples.rows(), notes: [], targets: [] }
  } finally {
    spawnSync(ambit, ['sandbox', 'down', '--name', NAME], { encoding: 'utf8' })
  }
}

async function warm(path: Path): Promise<void> {
  await inPod(path.client, ['wrk', '-t1', '-c2', '-d1s', `http://${path.http}/`], 30_000)
}

async function measure(path: Path, seconds: number, samples: Samples): Promise<void> {
  const limit = (seconds + 20) * 1_000
  const base = (what: string): string => (path.baseline === '' ? '' : `${path.baseline}: ${what}`)
  const add = (what: string, value: number, unit: string): void => {
    samples.add(`${path.name}: ${what}`, value, unit, base(what))
  }
  if (path.iperf !== undefined) {
    add(
      'throughput',
      parseIperf(await inPod(path.client, ['iperf3', '-c', path.iperf, '-t', String(seconds), '-J'], limit)),
      'Gbit/s',
    )
  }
  for (const connections of [1, 32]) {
    const text = await inPod(
      path.client,
      ['wrk', '--latency', '-t1', `-c${connections}`, `-d${seconds}s`, `http://${path.http}/`],
      limit,
    )
    const result = parseWrk(text)
    if (result.errors > 0) throw new Error(`${path.name}: ${result.errors} requests failed:\n${text}`)
    const what = connections === 1 ? '1 connection' : `${connections} connections`
    add(`requests, ${what}`, result.requestsPerSecond, '1/s')
    add(`p50, ${what}`, result.p50Ms, 'ms')
    add(`p99, ${what}`, result.p99Ms, 'ms')
  }
  const fresh = parseWrk(
    await inPod(
      path.client,
      ['wrk', '--latency', '-t1', '-c8', `-d${seconds}s`, '-H', 'Connection: close', `http://${path.http}/`],
      limit,
    ),
  )
  add('new connections', fresh.requestsPerSecond, '1/s')
}
