// Real sandboxes for tests: a folder of YAML of their own, brought up in this process, always taken down again. Must not
// live here: expectations.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PodRunner } from '../../agent/sandbox/pod-runner.ts'
import { Sandbox, type SandboxOptions } from '../../agent/sandbox/sandbox.ts'

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const ambit = join(root, 'agent', 'bin', 'ambit')
export const shop = join(root, 'deploy', 'examples', 'shop')

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface RunOptions {
  readonly input?: string | Buffer
  readonly timeoutMs?: number
  readonly environment?: Readonly<Record<string, string>>
}

/** Runs a command of this machine to its end. Never rejects for a bad exit code. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: options.timeoutMs ?? 60_000,
    killSignal: 'SIGKILL',
    ...(options.environment ? { env: { ...process.env, ...options.environment } } : {}),
  })
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  child.stdin.on('error', () => undefined)
  child.stdin.end(options.input ?? '')
  const [code] = (await once(child, 'close')) as [number | null]
  return { code: code ?? 137, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}

/** Waits until `check` gives something true; fails with `what` after the time. */
export async function eventually<T>(what: string, check: () => Promise<T> | T, timeoutMs = 10_000): Promise<T> {
  const end = performance.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const value = await check()
      if (value) return value
    } catch (error) {
      last = error
    }
    if (performance.now() > end)
      throw new Error(`not within ${timeoutMs} ms: ${what}${last instanceof Error ? ` (${last.message})` : ''}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** What an echo app answers. */
export interface Echo {
  readonly pod: string
  readonly namespace: string
  readonly node: string
  readonly version: string
  readonly protocol: string
  readonly method: string
  readonly path: string
  readonly peer: { readonly address: string; readonly port: number }
  readonly headers: Readonly<Record<string, string>>
}

export class World {
  readonly sandbox: Sandbox
  readonly dir: string
  /** What the sandbox told its person. */
  readonly told: readonly string[]

  constructor(sandbox: Sandbox, dir: string, told: readonly string[]) {
    this.sandbox = sandbox
    this.dir = dir
    this.told = told
  }

  pod(name: string): PodRunner {
    return this.sandbox.find(name)
  }

  /** Runs a shell script in a pod. */
  sh(pod: string, script: string, options: RunOptions = {}): Promise<Ran> {
    return this.exec(pod, ['sh', '-c', script], options)
  }

  exec(pod: string, command: readonly string[], options: RunOptions = {}): Promise<Ran> {
    const line = this.pod(pod).exec(command)
    if (!line) throw new Error(`${pod} has no running container`)
    return run(line, options)
  }

  /** The echo app's answer to a curl from a pod; throws what curl said when there is none. */
  async curl(pod: string, args: readonly string[], timeoutMs = 15_000): Promise<Echo> {
    const { code, out, err } = await this.exec(pod, ['curl', '-sS', '-g', '-m', '10', ...args], { timeoutMs })
    if (code !== 0) throw new Error(`curl ${args.join(' ')} from ${pod}: exit ${code}: ${err}`)
    try {
      return JSON.parse(out) as Echo
    } catch {
      throw new Error(`curl ${args.join(' ')} from ${pod}: not an echo: ${out.slice(0, 200)}`)
    }
  }

  /** The status code of a curl from a pod, and curl's own exit code (7: refused, 56: reset, 28: timeout). */
  async status(pod: string, args: readonly string[]): Promise<{ status: number; exit: number; body: string }> {
    const { code, out } = await this.exec(pod, ['curl', '-sS', '-g', '-m', '10', '-w', '\n%{http_code}', ...args])
    const at = out.lastIndexOf('\n')
    return { status: Number(out.slice(at + 1)), exit: code, body: out.slice(0, at) }
  }

  /** Replaces or adds a file of the folder. */
  write(file: string, text: string): void {
    writeFileSync(join(this.dir, file), text)
  }

  /** Changes a file of the folder; the change must change something. */
  edit(file: string, change: (text: string) => string): void {
    const before = readFileSync(join(this.dir, file), 'utf8')
    const after = change(before)
    if (after === before) throw new Error(`the edit of ${file} changes nothing`)
    this.write(file, after)
  }

  remove(file: string): void {
    rmSync(join(this.dir, file))
  }

  /** Log lines of programs and pods whose file name contains `what`. */
  logs(what: string): Record<string, unknown>[] {
    const folder = this.sandbox.paths.logs
    if (!existsSync(folder)) return []
    return readdirSync(folder)
      .filter((name) => name.includes(what))
      .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'))
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  /** The end of every log, for a failure. */
  lastWords(): string {
    const folder = this.sandbox.paths.logs
    if (!existsSync(folder)) return '(no logs)'
    return readdirSync(folder)
      .map((name) => `--- ${name}\n${readFileSync(join(folder, name), 'utf8').split('\n').slice(-12).join('\n')}`)
      .join('\n')
  }
}

let count = 0

/** Files of a folder by name, or a folder to copy. */
export type Folder = string | Readonly<Record<string, string>>

/** Makes a folder in /tmp that may be edited. */
export function makeFolder(from: Folder): string {
  const dir = mkdtempSync(join(tmpdir(), 'ambit-test-'))
  if (typeof from === 'string') cpSync(from, dir, { recursive: true })
  else for (const [name, text] of Object.entries(from)) writeFileSync(join(dir, name), text)
  return dir
}

/** A name that no other sandbox of this machine has. */
export function uniqueName(): string {
  return `test-${process.pid}-${count++}`
}

/** Brings a sandbox up; `close` takes it down and removes the folder. */
export async function openWorld(
  from: Folder,
  options: Partial<Pick<SandboxOptions, 'nodes' | 'mesh' | 'readyMs'>> = {},
): Promise<World & { close(): Promise<string[]> }> {
  const dir = makeFolder(from)
  const told: string[] = []
  const sandbox = await Sandbox.up({
    dir,
    name: uniqueName(),
    nodes: options.nodes ?? 2,
    mesh: options.mesh ?? true,
    tell: (line) => told.push(line),
    readyMs: options.readyMs ?? 90_000,
  }).catch((error: unknown) => {
    rmSync(dir, { recursive: true, force: true })
    throw error
  })
  const world = new World(sandbox, dir, told)
  return Object.assign(world, {
    close: async () => {
      const left = await sandbox.down()
      rmSync(dir, { recursive: true, force: true })
      return left
    },
  })
}

/** Brings a sandbox up, runs, takes it down whatever happens; a failure shows the ends of all logs. */
export async function withSandbox(
  from: Folder,
  options: Partial<Pick<SandboxOptions, 'nodes' | 'mesh' | 'readyMs'>>,
  body: (world: World) => Promise<void>,
): Promise<void> {
  const world = await openWorld(from, options)
  try {
    await body(world)
  } catch (error) {
    process.stderr.write(`${world.lastWords()}\n`)
    throw error
  } finally {
    await world.close()
  }
}
