// The suite `http`: the waypoint beside nginx, HAProxy and Envoy, each alone on one core, with clients and servers on the other. Rounds are interleaved
// over all rows. Must not live here: how one is measured (cases.ts).
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SuiteOptions } from '../main.ts'
import { recordProfiles } from '../profiles.ts'
import { pivot, Samples, type Report } from '../table.ts'
import { judge, type TargetSpec } from '../targets.ts'
import { Loads, measure, nameOf, type Case, type Proxy } from './cases.ts'
import { startApp, startEnvoy, startHaproxy, startNginx, type Peer, type Protocol } from './peers.ts'
import { inNamespace, startWorld, type HttpWorld } from './world.ts'

const CONNECTIONS = [1, 32, 256] as const

const NOTES = [
  'Core 1: the proxy, one worker. Core 0: clients and servers. 80/20 split and access log everywhere; policy: waypoint and Envoy; metrics: waypoint, Envoy, HAProxy.',
  'Client → proxy → server: H1 wrk → nginx; H2 and gRPC h2load, one stream a connection → nginx (HTTP/2; its gRPC answer has trailers); 1 MB down and up: wrk → nginx.',
  'HBONE: a load generator that is app and agent in one (test/bench/http/hbone-load.ts; a connection is a CONNECT tunnel, up to 100 of them in a session) → waypoint →',
  'a server that is agent and app in one (hbone-app.ts). nginx in the column "to nginx" is nginx in plaintext HTTP/1.1 at the same number of connections.',
  'CPU: user and system time of the whole process per request; per core: requests in one second of it. busy: share of its core; where it is well below 1,',
  'the clients, or other work on the machine, were the limit: then per core is what to compare.',
] as const

const TARGETS: readonly TargetSpec[] = [
  // By the rate as it was and by the CPU time it took: on a machine that does other work as well only the second means much.
  ...(['requests', 'per core'] as const).flatMap((metric) =>
    CONNECTIONS.flatMap((c): TargetSpec[] => [
      target(c, 'H1', metric, 'nginx', 1.2),
      target(c, 'H1', metric, 'Envoy', 4),
      target(c, 'HBONE', metric, 'nginx', 1),
    ]),
  ),
  { ...target(32, 'H1', 'p99', 'nginx', 1), atMost: true },
]

/** Ambit's row to another proxy's in plaintext HTTP/1.1. */
function target(connections: number, protocol: string, metric: string, other: string, limit: number): TargetSpec {
  const row = (version: string, who: string): string =>
    `${version} → ${version}, ${connections} ${connections === 1 ? 'connection' : 'connections'}: ${who}: ${metric}`
  return { row: row(protocol, 'Ambit'), baseline: row('H1', other), limit, atMost: false }
}

export async function benchHttp(options: SuiteOptions): Promise<Report> {
  const code = inNamespace()
  if (code !== undefined) process.exit(code)
  const { rounds, seconds, say, only, profile } = options
  const folder = mkdtempSync(join(tmpdir(), 'ambit-bench-'))
  // nginx reads its files as another user.
  chmodSync(folder, 0o755)
  const stops: (() => Promise<void>)[] = []
  try {
    say('starting the programs')
    const world = await startWorld(folder)
    stops.push(() => world.stop())
    const app = await startApp(folder)
    stops.push(() => app.stop())
    const peers: Peer[] = []
    if (profile === undefined) {
      const envoy = await startEnvoy(folder)
      if (!envoy) say('no Envoy (build/bench/envoy): its rows are missing; deploy/setup.sh --bench says how to get it')
      peers.push(await startNginx(folder), await startHaproxy(folder), ...(envoy ? [envoy] : []))
      for (const { program } of peers) stops.push(() => program.stop())
    }
    const cases = allCases(world, peers, folder).filter((one) => only === undefined || nameOf(one).includes(only))
    if (cases.length === 0) throw new Error(`no case is called '${only}'`)
    if (profile !== undefined) return await profileCases(cases, world, options, profile)

    const samples = new Samples()
    for (const one of cases) await measure(one, 1)
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`)
      for (const one of cases) {
        const sample = await measure(one, seconds)
        const name = nameOf(one)
        const nginx = `H1 → H1, ${name.slice(name.indexOf(', ') + 2, name.lastIndexOf(':'))}: nginx`
        const same = cases.some((other) => nameOf(other) === `${name.slice(0, name.lastIndexOf(':'))}: nginx`)
        const base = one.proxy.name === 'nginx' ? '' : same ? `${name.slice(0, name.lastIndexOf(':'))}: nginx` : nginx
        const add = (metric: string, value: number, unit: string): void =>
          samples.add(`${name}: ${metric}`, value, unit, base === '' ? '' : `${base}: ${metric}`)
        add('requests', sample.requestsPerSecond, '1/s')
        add('p50', sample.p50Ms, 'ms')
        add('p99', sample.p99Ms, 'ms')
        add('CPU', sample.cpuMicros, 'µs')
        add('per core', 1_000_000 / sample.cpuMicros, '1/s')
        samples.add(`${name}: busy`, sample.busy, '', '')
        samples.add(`${name}: failed`, sample.errors, '', '')
      }
    }
    const rows = samples.rows()
    const columns = [
      { metric: 'requests', title: 'requests/s', spread: true, ratio: 'to nginx' },
      { metric: 'p50', title: 'p50 ms' },
      { metric: 'p99', title: 'p99 ms' },
      { metric: 'CPU', title: 'CPU µs' },
      { metric: 'per core', title: 'per core', ratio: 'to nginx' },
      { metric: 'busy', title: 'busy' },
      { metric: 'failed', title: 'failed', spread: true },
    ]
    return { rows, notes: NOTES, targets: judge(TARGETS, rows), table: pivot(rows, columns) }
  } finally {
    for (const stop of stops.reverse()) await stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

async function profileCases(
  cases: readonly Case[],
  world: HttpWorld,
  { seconds, say }: SuiteOptions,
  folder: string,
): Promise<Report> {
  await recordProfiles(
    folder,
    [{ name: 'waypoint', pid: world.waypoint.pid }],
    cases.map((one) => ({
      name: nameOf(one),
      run: async () => {
        const { requestsPerSecond, cpuMicros } = await measure(one, seconds)
        say(
          `${nameOf(one)}: ${Math.round(requestsPerSecond)} requests/s, ${Math.round(cpuMicros)} µs each, while profiled`,
        )
      },
    })),
  )
  return { rows: [], notes: [], targets: [], table: '' }
}

function allCases(world: HttpWorld, peers: readonly Peer[], folder: string): Case[] {
  const loads = new Loads(folder)
  const ambit: Proxy = { name: 'Ambit', pid: world.waypoint.pid, log: world.waypoint.output }
  const proxies = [
    { proxy: ambit, port: world.plainPort as Readonly<Partial<Record<Protocol, number>>> },
    ...peers.map((peer) => ({
      proxy: {
        name: peer.name,
        pid: peer.program.pid,
        // HAProxy logs to its output; the others to a file beside it.
        log: peer.name === 'HAProxy' ? peer.program.output : join(folder, peer.name.toLowerCase(), 'access.log'),
      },
      port: peer.port,
    })),
  ]
  const cases: Case[] = []
  const each = (protocol: Protocol, label: string, connections: readonly number[], run: Through): void => {
    for (const count of connections)
      for (const { proxy, port } of proxies) {
        const to = port[protocol]
        if (to === undefined) continue
        cases.push({ protocol: label, connections: count, proxy, run: (seconds) => run(to, count, seconds) })
      }
  }
  each('h1', 'H1 → H1', CONNECTIONS, (port, count, seconds) => loads.wrk(port, '/', count, seconds))
  for (const connections of CONNECTIONS)
    cases.push({
      protocol: 'HBONE → HBONE',
      connections,
      proxy: ambit,
      run: (seconds) => loads.program(world.hboneLoad(connections, seconds), seconds),
    })
  each('h2', 'H2 → H2', CONNECTIONS, (port, count, seconds) => loads.h2load(port, count, seconds, false))
  each('grpc', 'gRPC', CONNECTIONS, (port, count, seconds) => loads.h2load(port, count, seconds, true))
  each('h1', '1 MB down', CONNECTIONS, (port, count, seconds) => loads.wrk(port, '/1mb', count, seconds))
  each('h1', '1 MB up', [32], (port, count, seconds) => loads.wrk(port, '/upload', count, seconds, true))
  return cases
}

type Through = (port: number, connections: number, seconds: number) => ReturnType<Loads['wrk']>
