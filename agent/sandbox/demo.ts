// `ambit sandbox demo`: the shop on two nodes, with what the mesh does to its requests shown and checked as it goes. Must
// not live here: the world (sandbox.ts), looking at packets (capture.ts).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { join, relative } from 'node:path'
import { AmbitError, messageOf } from '../base/errors.ts'
import { Capture } from './capture.ts'
import type { LoadSummary } from './app/load.ts'
import { describeStatus, optionsOf, serveSandbox } from './commands.ts'
import { logSources, printLogs } from './logs.ts'
import { metricsUrl } from './programs.ts'
import { PROJECT, type Sandbox } from './sandbox.ts'
import { named, Why } from './why.ts'

/** Requests for the split: the fewer, the wider five standard deviations are (at 2 400 and 80/20: ± 4.1 points). */
const SPLIT_REQUESTS = 2_400
const SIGMAS = 5
const DEMO_NODES = 2

function say(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** Prints what was found out and remembers whether all of it held. */
class Findings {
  failed = 0

  check(held: boolean, what: string): void {
    if (!held) this.failed++
    say(`  ${held ? '✔' : '✘'} ${what}`)
  }
}

interface Ran {
  readonly code: number
  readonly out: string
}

/** Runs a command in a pod. */
async function inPod(sandbox: Sandbox, pod: string, command: readonly string[]): Promise<Ran> {
  const line = sandbox.find(pod).exec(command)
  if (!line) throw new AmbitError('SANDBOX_POD_NOT_RUNNING', `${pod} has no running container`)
  const child = spawn(line[0]!, line.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 })
  let out = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (out += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code: code ?? 1, out }
}

interface Reply {
  readonly status: number
  readonly body: string
  /** The answer of an echo app, when it is one. */
  readonly echo: { pod?: string; node?: string; peer?: { address?: string } }
  readonly failure: number
}

async function curl(sandbox: Sandbox, pod: string, args: readonly string[]): Promise<Reply> {
  const { code, out } = await inPod(sandbox, pod, ['curl', '-sS', '-m', '10', '-w', '\n%{http_code}', ...args])
  const at = out.lastIndexOf('\n')
  const body = out.slice(0, at).trim()
  let echo: Reply['echo'] = {}
  try {
    echo = JSON.parse(body) as Reply['echo']
  } catch {
    // A local reply of the waypoint.
  }
  return { status: Number(out.slice(at + 1)), body, echo, failure: code }
}

interface Split {
  /** Share of subset v1. */
  readonly share: number
  /** The route that asks for it. */
  readonly route: string
}

/** What the folder asks for, so that an edited copy is judged by its own numbers. */
function splitOf(why: Why, dir: string): Split {
  const { explanation } = why.ask('frontend', 'my-service', 'GET', '/api/items')
  const of = (subset: string): number =>
    explanation.branches.reduce((sum, one) => sum + (one.to.endsWith(` subset ${subset}`) ? one.share : 0), 0)
  const route = explanation.steps
    .flatMap((step) => step.because)
    .find((one) => one.resource.startsWith('VirtualService'))
  if (!route || of('v1') + of('v2') === 0)
    throw new AmbitError('SANDBOX_DEMO_FOLDER', `${dir} has no VirtualService with weights for the subsets v1 and v2`, {
      hint: 'The demo shows deploy/examples/shop or an edited copy of it.',
    })
  return { share: of('v1'), route: named(route) }
}

interface AccessLine {
  readonly type?: string
  readonly path?: string
  readonly response_code?: number
  readonly response_code_details?: string
  readonly source_principal?: string
  readonly policy?: string
}

/** The waypoint's access line for a path, waiting a moment for it to be written. */
async function accessLine(sandbox: Sandbox, path: string): Promise<AccessLine> {
  for (let tries = 0; tries < 40; tries++) {
    const lines: AccessLine[] = []
    await printLogs(
      sandbox.paths.logs,
      'waypoint',
      false,
      (line) => lines.push(JSON.parse(line) as AccessLine),
      () => true,
    )
    const found = lines.find((line) => line.type === 'access' && line.path === path)
    if (found) return found
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return {}
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request(url, { agent: false, timeout: 5_000 }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () => resolve(text))
    })
      .on('error', reject)
      .end()
  })
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`
}

async function showTraffic(sandbox: Sandbox, wanted: Split, findings: Findings): Promise<void> {
  say(`\nWho talks to whom: ${SPLIT_REQUESTS} requests from frontend to http://my-service/api/items`)
  const { out } = await inPod(sandbox, 'frontend', [
    'ambit',
    'app',
    'load',
    'http://my-service/api/items',
    '-n',
    String(SPLIT_REQUESTS),
    '-c',
    '16',
  ])
  let summary: LoadSummary
  try {
    summary = JSON.parse(out) as LoadSummary
  } catch {
    findings.check(false, `the load could not run: ${out.slice(0, 500)}`)
    return
  }
  const client = sandbox.find('frontend')
  for (const [name, count] of Object.entries(summary.pods).toSorted(([a], [b]) => a.localeCompare(b)))
    say(`    ${client.name} (${client.node.name}) → waypoint → ${name} (${sandbox.find(name).node.name})  ${count}`)
  const errors = Object.entries(summary.errors).map(([code, count]) => `${count} × ${code}`)
  const codes = Object.entries(summary.codes).map(([code, count]) => `${count} × ${code}`)
  findings.check(
    summary.codes['200'] === SPLIT_REQUESTS,
    `every request was answered: ${[...codes, ...errors].join(', ')}; p50 ${summary.latencyMs.p50} ms, p99 ${summary.latencyMs.p99} ms`,
  )
  const seen = (summary.versions['v1'] ?? 0) / Math.max(1, summary.requests)
  const sigma = Math.sqrt((wanted.share * (1 - wanted.share)) / SPLIT_REQUESTS)
  findings.check(
    summary.requests >= 2_000 && Math.abs(seen - wanted.share) <= SIGMAS * sigma + 1e-9,
    `split v1/v2: ${percent(seen)} / ${percent(1 - seen)}; ${wanted.route} asks for ${percent(wanted.share)} / ${percent(1 - wanted.share)} (${SIGMAS} σ = ± ${percent(SIGMAS * sigma)})`,
  )
}

async function showPolicy(sandbox: Sandbox, why: Why, findings: Findings): Promise<void> {
  say('\nWho may call whom (what decides, as `ambit explain` names it)')
  const allowed = await curl(sandbox, 'frontend', ['http://my-service/api/allowed'])
  const allowedLine = await accessLine(sandbox, '/api/allowed')
  const allows = why.ask('frontend', 'my-service', 'GET', '/api/allowed')
  findings.check(
    allowed.status === 200 && allowedLine.policy !== undefined && allows.verdict === 'delivered',
    `frontend GET /api/allowed → ${allowed.status}: ${allows.why}, matches ${allowedLine.source_principal ?? ''}`,
  )
  const path = await curl(sandbox, 'frontend', ['http://my-service/admin'])
  const pathLine = await accessLine(sandbox, '/admin')
  const admin = why.ask('frontend', 'my-service', 'GET', '/admin')
  findings.check(
    path.status === 403 &&
      path.body === 'RBAC: access denied' &&
      pathLine.response_code_details === admin.explanation.branches[0]?.result.details,
    `frontend GET /admin → ${path.status} '${path.body}': ${admin.why} [${pathLine.response_code_details ?? ''}]`,
  )
  const intruder = await curl(sandbox, 'intruder', ['http://my-service/api/intruder'])
  const intruderLine = await accessLine(sandbox, '/api/intruder')
  const stranger = why.ask('intruder', 'my-service', 'GET', '/api/intruder')
  findings.check(
    intruder.status === 403 && intruderLine.response_code === 403 && stranger.verdict === 'denied',
    `intruder GET /api/intruder → ${intruder.status} '${intruder.body}', being ${intruderLine.source_principal ?? ''}: ${stranger.why}`,
  )
  const target = sandbox.find('my-service-v1')
  const outsider = await curl(sandbox, 'outsider', [`http://${target.addresses[0]}:8080/api/items`])
  const outside = why.ask('outsider', 'my-service-v1:8080')
  findings.check(
    (outsider.failure === 7 || outsider.failure === 56) && outside.verdict === 'denied',
    `outsider → ${target.name} in plaintext: ${outsider.failure === 0 ? `answered with ${outsider.status}` : 'refused'} (curl ${outsider.failure}): ${outside.why}`,
  )
}

async function showEncryption(sandbox: Sandbox, findings: Findings): Promise<void> {
  say('\nWhat goes over the wire between the nodes')
  const secret = `secret-${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`
  const plain = `plain${Math.random().toString(36).slice(2)}`
  const captures: Capture[] = []
  for (const node of sandbox.layout.nodes) captures.push(await Capture.start(sandbox.layout.home, node))
  const client = sandbox.find('frontend')
  const replies: Reply[] = []
  try {
    // A service in two versions on two nodes: some of these must cross the link, whatever the waypoint's node.
    for (let index = 0; index < 12; index++)
      replies.push(await curl(sandbox, 'frontend', ['-d', secret, 'http://my-service/api/secret']))
    // The control: what is sent in the clear must be seen by the same capture.
    await inPod(sandbox, 'outsider', ['getent', 'hosts', `${plain}.example`])
    await inPod(sandbox, 'frontend', ['getent', 'hosts', `${plain}.example`])
  } finally {
    for (const capture of captures) await capture.stop()
  }
  const far = replies.filter((reply) => reply.echo.node !== undefined && reply.echo.node !== client.node.name)
  const records = captures.reduce((sum, capture) => sum + capture.tlsRecords(), 0)
  const seen = captures.reduce((sum, capture) => sum + capture.count(secret), 0)
  const control = captures.reduce((sum, capture) => sum + capture.count(plain), 0)
  const echoed = replies.filter((reply) => reply.status === 200 && reply.body.includes(secret)).length
  findings.check(
    echoed === replies.length && far.length > 0,
    `${echoed} of ${replies.length} requests with a secret marker came back with it, ${far.length} of them from the other node`,
  )
  findings.check(
    records > 0 && seen === 0,
    `captured on both nodes' links: ${records} TLS application records on port 15008, the marker ${seen} times`,
  )
  findings.check(control > 0, `the same capture sees what is not encrypted: a DNS name ${control} times`)
  const address = client.addresses[0]
  findings.check(
    far.length > 0 && replies.every((reply) => client.addresses.includes(reply.echo.peer?.address ?? '')),
    `the app saw the real client: ${far[0]?.echo.pod ?? replies[0]?.echo.pod ?? ''} says its peer is ${replies[0]?.echo.peer?.address ?? '(unknown)'}, frontend's address is ${address}`,
  )
}

async function showMetrics(sandbox: Sandbox, findings: Findings): Promise<void> {
  const node = sandbox.find('frontend').node
  const url = metricsUrl(node)
  say(`\nA few of the node's metrics: ${url}`)
  const text = await fetchText(url)
  const lines = text
    .split('\n')
    .filter(
      (line) => line.startsWith('istio_tcp_connections_opened_total{reporter="source"') && line.includes('frontend'),
    )
  for (const line of lines.slice(0, 3)) {
    const label = (name: string): string => new RegExp(`[{,]${name}="([^"]*)"`).exec(line)?.[1] ?? ''
    say(
      `    istio_tcp_connections_opened_total{source_workload="${label('source_workload')}",destination_service="${label('destination_service')}",` +
        `destination_workload="${label('destination_workload')}",connection_security_policy="${label('connection_security_policy')}"} ${line.slice(line.lastIndexOf(' ') + 1)}`,
    )
  }
  findings.check(
    lines.some((line) => line.includes('connection_security_policy="mutual_tls"')),
    'the agent counts the connections it carried over mutual TLS',
  )
}

/** Runs the demo. `once`: ends when all is shown, with 0 only if all of it held. */
export async function demo(dir: string | undefined, name: string, once_: boolean): Promise<number> {
  const folder = dir ?? join(PROJECT, 'deploy', 'examples', 'shop')
  const began = performance.now()
  const why = new Why(folder)
  const wanted = splitOf(why, folder)
  say(`Bringing up ${relative(process.cwd(), folder) || folder} on ${DEMO_NODES} nodes …`)
  const { sandbox, ended, stop } = await serveSandbox(
    optionsOf(folder, {
      name,
      nodes: DEMO_NODES,
      detach: false,
      mesh: true,
      kubernetes: false,
      image: false,
      timeout: 90,
    }),
  )
  const findings = new Findings()
  try {
    for (const line of describeStatus(await sandbox.status())) say(`  ${line}`)
    await showTraffic(sandbox, wanted, findings)
    await showPolicy(sandbox, why, findings)
    await showEncryption(sandbox, findings)
    await showMetrics(sandbox, findings)
  } catch (error) {
    if (!sandbox.ended) findings.check(false, messageOf(error))
  }
  if (sandbox.ended) return ended
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  say(`\n${findings.failed === 0 ? 'All of it held' : `${findings.failed} of it did not hold`} (${seconds} s).`)
  if (findings.failed > 0)
    say(`Logs: ${logSources(sandbox.paths.logs, undefined).length} files in ${sandbox.paths.logs}`)
  if (once_) {
    stop()
    const code = await ended
    return findings.failed > 0 ? 1 : code
  }
  const shown = relative(process.cwd(), sandbox.options.dir) || sandbox.options.dir
  say(`
The shop stays up until Ctrl-C. From another terminal:
  agent/bin/ambit sandbox exec --name ${name} frontend -- curl -s http://my-service/api/items
  agent/bin/ambit sandbox logs --name ${name} waypoint -f
  edit ${join(shown, '40-traffic.yaml')}: the split follows within a second`)
  return ended
}
