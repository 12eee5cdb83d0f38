// Calls the CNI plugin as a runtime does: environment, standard input, exit code. Must not live here: expectations.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'

const root = new URL('../../..', import.meta.url).pathname

/** `release` is what runs; `asan` is the same under AddressSanitizer, which makes the exit code bad for a leak, too. */
export type Build = 'release' | 'asan'

/** The program's path, built if it is not fresh. */
export function pluginProgram(build: Build): string {
  execFileSync('native/cni/build.sh', build === 'asan' ? ['--asan'] : [], { cwd: root, stdio: 'ignore' })
  return `${root}build/cni/ambit-cni${build === 'asan' ? '.asan' : ''}`
}

/** The reader of JSON alone (echo.c). */
export function echoProgram(): string {
  pluginProgram('asan')
  return `${root}build/cni/echo.asan`
}

export interface Result {
  readonly code: number | null
  readonly signal: string | null
  readonly stdout: string
  readonly stderr: string
  readonly milliseconds: number
  /** Standard output as JSON: a result, or the error of CNI. */
  readonly error: { readonly code?: number; readonly msg?: string; readonly details?: string; cniVersion?: string }
}

export interface CallOptions {
  /** Standard input; `open`: it never ends. */
  readonly input?: string | Buffer
  readonly open?: boolean
  readonly environment?: Readonly<Record<string, string | undefined>>
  /** The program is an argument of this command line. */
  readonly within?: readonly string[]
}

/** Runs a CNI plugin. `environment` is the whole of it, but PATH. */
export async function callPlugin(program: string, command: string, options: CallOptions = {}): Promise<Result> {
  const { input = '', open = false, environment = {}, within = [] } = options
  const env: Record<string, string> = { PATH: process.env['PATH'] ?? '', CNI_COMMAND: command }
  for (const [name, value] of Object.entries(environment)) if (value !== undefined) env[name] = value
  const started = performance.now()
  const [first, ...rest] = [...within, program]
  const child = spawn(first, rest, { env, stdio: 'pipe' })
  child.stdin.on('error', () => undefined)
  if (open) child.stdin.write(input)
  else child.stdin.end(input)
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve([code, signal]))
  })
  const stdout = Buffer.concat(out).toString()
  return {
    code,
    signal,
    stdout,
    stderr: Buffer.concat(err).toString(),
    milliseconds: performance.now() - started,
    get error() {
      return JSON.parse(stdout) as Result['error']
    },
  }
}

/** What an agent does with a request: an answer, text to send as it is, silence, or the end of the connection. */
export type Reaction = object | string | typeof SILENCE | typeof HANG_UP
export const SILENCE = Symbol('silence')
export const HANG_UP = Symbol('hang up')

/** A server at the path of an agent's local API that reacts as told, and remembers what it was asked. */
export class FakeAgent {
  readonly folder = mkdtempSync(`${tmpdir()}/ambit-cni-`)
  readonly path = `${this.folder}/agent.sock`
  readonly asked: Record<string, unknown>[] = []
  /** Reactions to the next requests; the last one stays. */
  reactions: Reaction[] = []
  #server: Server | undefined
  readonly #open = new Set<Socket>()

  listen(): Promise<void> {
    this.#server = createServer((socket) => {
      this.#open.add(socket)
      let text = ''
      socket.on('error', () => undefined)
      socket.setEncoding('utf8')
      socket.on('data', (chunk: string) => {
        text += chunk
        if (text.endsWith('\n')) this.#react(socket, text)
      })
    })
    return new Promise((resolve) => this.#server!.listen(this.path, resolve))
  }

  #react(socket: Socket, line: string): void {
    this.asked.push(JSON.parse(line) as Record<string, unknown>)
    const reaction = this.reactions.length > 1 ? this.reactions.shift() : this.reactions[0]
    if (reaction === HANG_UP) socket.destroy()
    else if (typeof reaction === 'object') socket.write(`${JSON.stringify(reaction)}\n`)
    else if (typeof reaction === 'string') socket.write(reaction)
  }

  async close(): Promise<void> {
    for (const socket of this.#open) socket.destroy()
    await new Promise<void>((resolve) => (this.#server ? this.#server.close(() => resolve()) : resolve()))
    rmSync(this.folder, { recursive: true, force: true })
  }
}
