// What the verbs of `ambit sandbox` do. Must not live here: flags (main.ts), the world itself (sandbox.ts).
import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { AmbitError, messageOf } from '../base/errors.ts'
import { checkName, ownerOf, sweep } from './claim.ts'
import { homeOf } from './layout.ts'
import type { KubeStatus } from './kube/cluster.ts'
import { describeCluster, serveCluster } from './kube/commands.ts'
import { askSandbox } from './local-api.ts'
import { printLogs } from './logs.ts'
import { pathsOf } from './programs.ts'
import { AMBIT, Sandbox, type SandboxOptions, type Status } from './sandbox.ts'
import { serve, type Served } from './serve.ts'

export interface UpFlags {
  readonly name: string
  readonly nodes: number
  readonly detach: boolean
  readonly mesh: boolean
  readonly kubernetes: boolean
  readonly image: boolean
  readonly timeout: number
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function optionsOf(dir: string, flags: UpFlags): SandboxOptions {
  return { dir, name: flags.name, nodes: flags.nodes, mesh: flags.mesh, tell: say, readyMs: flags.timeout * 1000 }
}

/** Brings a sandbox up in this process, until it is told to end. */
export function serveSandbox(options: SandboxOptions): Promise<Served<Sandbox>> {
  return serve(
    (stopped) => Sandbox.up(options, stopped),
    (sandbox, ask) => {
      const pod = sandbox.find(ask.pod ?? '')
      const command = pod.exec(ask.command ?? [], ask.container, ask.terminal)
      if (!command)
        throw new AmbitError('SANDBOX_POD_NOT_RUNNING', `${pod.namespace}/${pod.name} has no running container`, {
          hint: `See 'ambit sandbox logs ${pod.name}'.`,
        })
      return command
    },
  )
}

export function describeStatus(status: Status | KubeStatus): string[] {
  if ('kubeconfig' in status) return describeCluster(status)
  const lines = status.nodes.map((node) => `${node.name}: agent ${node.agentPid ?? 'not running'}, ${node.metricsUrl}`)
  const width = Math.max(0, ...status.pods.map((pod) => pod.namespace.length + pod.name.length + 1))
  for (const pod of status.pods)
    lines.push(
      `${`${pod.namespace}/${pod.name}`.padEnd(width)}  ${pod.node}  ${pod.enrolled ? 'in the mesh ' : 'not in mesh '} ${pod.ips.join(' ')}`,
    )
  return lines
}

export async function up(dir: string | undefined, flags: UpFlags): Promise<number> {
  if (dir === undefined && !flags.kubernetes)
    throw new AmbitError('SANDBOX_NO_FOLDER', 'a sandbox needs a folder of Kubernetes YAML', {
      hint: 'ambit sandbox up deploy/examples/shop, or with --kubernetes an empty cluster.',
    })
  if (flags.detach) return detach(dir, flags)
  const { sandbox, ended } = flags.kubernetes
    ? await serveCluster(dir, flags)
    : await serveSandbox(optionsOf(dir ?? '', flags))
  if (!sandbox.ended) {
    for (const line of describeStatus(await sandbox.status())) say(line)
    const what = flags.kubernetes ? 'runs' : `follows ${dir}`
    say(`ready: '${flags.name}' ${what}. Ctrl-C ends it.`)
  }
  return ended
}

/** Starts `up` as a process of its own and returns when it is ready. */
async function detach(dir: string | undefined, flags: UpFlags): Promise<number> {
  checkName(flags.name)
  const output = join(tmpdir(), `ambit-sandbox-${flags.name}-${process.pid}.log`)
  const fd = openSync(output, 'w', 0o600)
  const child = spawn(
    AMBIT,
    [
      'sandbox',
      'up',
      ...(dir === undefined ? [] : [dir]),
      '--name',
      flags.name,
      '--nodes',
      String(flags.nodes),
      '--timeout',
      String(flags.timeout),
      ...(flags.mesh ? [] : ['--no-mesh']),
      ...(flags.kubernetes ? ['--kubernetes'] : []),
      ...(flags.image ? [] : ['--no-image']),
    ],
    { stdio: ['ignore', fd, fd], detached: true },
  )
  closeSync(fd)
  const exited = once(child, 'exit') as Promise<[number | null]>
  let code: number | null | undefined
  void exited.then(([value]) => (code = value))
  let shown = 0
  // As it comes: to build a Kubernetes takes a quarter of an hour.
  const show = (): void => {
    const text = readFileSync(output)
    process.stdout.write(text.subarray(shown))
    shown = text.length
  }
  try {
    while (code === undefined) {
      show()
      const ready = await askSandbox(flags.name, { op: 'ready' }, 5_000).catch(() => false)
      if (ready === true && ownerOf(flags.name) === child.pid) break
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    show()
  } finally {
    rmSync(output, { force: true })
  }
  if (code !== undefined) return code === 0 || code === null ? 1 : code
  child.unref()
  say(`'${flags.name}' runs in the background. End it with: ambit sandbox down --name ${flags.name}`)
  return 0
}

export async function status(name: string, output: string): Promise<number> {
  const found = (await askSandbox(name, { op: 'status' })) as Status | KubeStatus
  if (output === 'json') say(JSON.stringify(found, null, 2))
  else for (const line of describeStatus(found)) say(line)
  return 0
}

/** Runs a command in a pod with this process's own standard streams. Resolves with its exit code. */
export async function exec(
  name: string,
  pod: string,
  command: readonly string[],
  container: string | undefined,
): Promise<number> {
  const line = (await askSandbox(name, {
    op: 'exec',
    pod,
    command,
    ...(container ? { container } : {}),
    ...(process.stdin.isTTY && process.env['TERM'] ? { terminal: process.env['TERM'] } : {}),
  })) as string[]
  const child = spawn(line[0]!, line.slice(1), { stdio: 'inherit' })
  // The command has the terminal: it gets Ctrl-C itself, and this process must outlive it to tell its exit code.
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, () => undefined)
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  if (signal)
    return (
      128 + (({ SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGTERM: 15 } as Record<string, number>)[signal] ?? 0)
    )
  return code ?? 1
}

export async function logs(name: string, wanted: string | undefined, follow: boolean): Promise<number> {
  const folder = pathsOf(homeOf(name)).logs
  if (!existsSync(folder) || !statSync(folder).isDirectory())
    throw new AmbitError('SANDBOX_NOT_RUNNING', `there is no sandbox '${name}'`, {
      hint: 'Start one: ambit sandbox up DIR --detach',
    })
  let stop = false
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (stop = true))
  process.stdout.on('error', () => (stop = true))
  const found = await printLogs(folder, wanted, follow, say, () => stop || !existsSync(folder))
  if (found === 0)
    throw new AmbitError('SANDBOX_NO_LOG', `nothing called '${wanted ?? ''}' writes a log in '${name}'`, {
      hint: 'Programs: control, agent, agent-node-1, waypoint, dns, sandbox; or a pod.',
    })
  return 0
}

/** Ends a sandbox, running or crashed, and removes everything it made. */
export async function down(name: string): Promise<number> {
  checkName(name)
  const owner = ownerOf(name)
  if (owner === undefined) {
    const there = existsSync(homeOf(name))
    const left = await sweep(name)
    for (const one of left) process.stderr.write(`ambit sandbox: not removed: ${one}\n`)
    if (!there) say(`no sandbox '${name}' is running`)
    return left.length === 0 ? 0 : 1
  }
  try {
    process.kill(owner, 'SIGTERM')
  } catch (error) {
    process.stderr.write(`ambit sandbox: ${messageOf(error)}\n`)
  }
  const end = performance.now() + 30_000
  while (ownerOf(name) !== undefined) {
    if (performance.now() > end)
      throw new AmbitError('SANDBOX_STUCK', `the process ${owner} of '${name}' does not end`, {
        hint: `Kill it (kill -9 ${owner}) and run this again.`,
      })
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  const left = await sweep(name)
  return left.length === 0 ? 0 : 1
}
