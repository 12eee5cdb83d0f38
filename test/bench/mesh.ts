// The suite `mesh`: no mesh, the mesh on one node and across nodes, a waypoint, and nginx and HAProxy doing the waypoint's
// job, all in one sandbox of two nodes. Rounds are interleaved over all rows; the client and its agent are on core 0, the server, its agent
// and whatever stands between on core 1. Must not live here: reading the tools' output (tools.ts).
import type { SuiteOptions } from './main.ts'
import { BenchSandbox } from './sandbox.ts'
import { Samples, type Report } from './table.ts'
import { parseIperf, parseWrk } from './tools.ts'

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

export async function benchMesh({ rounds, seconds, say }: SuiteOptions): Promise<Report> {
  say('bringing the world up')
  return await BenchSandbox.with('bench', async (sandbox) => {
    const address = (namespace: string, name: string): string => sandbox.address(namespace, name)
    const samples = new Samples()
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
    for (const { client, http } of paths)
      await sandbox.inPod(client, ['wrk', '-t1', '-c2', '-d1s', `http://${http}/`], 30_000)
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`)
      for (const path of paths) await measure(sandbox, path, seconds, samples)
    }
    return { rows: samples.rows(), notes: [], targets: [] }
  })
}

async function measure(sandbox: BenchSandbox, path: Path, seconds: number, samples: Samples): Promise<void> {
  const limit = (seconds + 20) * 1_000
  const base = (what: string): string => (path.baseline === '' ? '' : `${path.baseline}: ${what}`)
  const add = (what: string, value: number, unit: string): void => {
    samples.add(`${path.name}: ${what}`, value, unit, base(what))
  }
  if (path.iperf !== undefined) {
    add(
      'throughput',
      parseIperf(await sandbox.inPod(path.client, ['iperf3', '-c', path.iperf, '-t', String(seconds), '-J'], limit)),
      'Gbit/s',
    )
  }
  for (const connections of [1, 32]) {
    const text = await sandbox.inPod(
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
    await sandbox.inPod(
      path.client,
      ['wrk', '--latency', '-t1', '-c8', `-d${seconds}s`, '-H', 'Connection: close', `http://${path.http}/`],
      limit,
    ),
  )
  add('new connections', fresh.requestsPerSecond, '1/s')
}
