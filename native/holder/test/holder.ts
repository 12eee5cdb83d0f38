// A holder and its client for tests: the real program, an independent peer in Python. Must not live here: expectations.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { createInterface } from 'node:readline'

const root = new URL('../../..', import.meta.url).pathname

/** What peer.py answers. */
export interface Answer {
  readonly error?: string
  readonly eof?: boolean
  readonly client?: number
  readonly socket?: number
  readonly port?: number
  readonly said?: string
  readonly status?: string
  readonly version?: number
  readonly kind?: string | number
  readonly count?: number
  readonly instance?: string
  readonly names?: readonly string[]
  readonly sockets?: readonly number[]
}

/** `release` is what runs; `asan` is the same under AddressSanitizer, which makes the exit code bad for a leak, too. */
export type Build = 'release' | 'asan'

/** The program's path, built if it is not fresh. */
export function holderProgram(build: Build): string {
  execFileSync('native/holder/build.sh', build === 'asan' ? ['--asan'] : [], { cwd: root, stdio: 'ignore' })
  return `${root}/build/holder/ambit-holder${build === 'asan' ? '.asan' : ''}`
}

export class Holder {
  readonly process: ChildProcess
  readonly ended: Promise<{ code: number | null; signal: string | null }>
  log = ''

  constructor(program: string, args: readonly string[]) {
    this.process = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.process.stderr!.on('data', (chunk: Buffer) => (this.log += chunk.toString()))
    this.ended = once(this.process, 'close').then(([code, signal]) => ({
      code: code as number | null,
      signal: signal as string | null,
    }))
  }

  /** Resolves once the log has the text. */
  async says(text: string): Promise<void> {
    const end = performance.now() + 10_000
    while (!this.log.includes(text)) {
      if (performance.now() > end) throw new Error(`the holder never said '${text}': ${this.log}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

/** Runs holders on a path of its own, with one client process. */
export class Stage {
  readonly folder = mkdtempSync(`${tmpdir()}/ambit-holder-`)
  readonly path = `${this.folder}/holder.sock`
  readonly #program: string
  readonly #holders: Holder[] = []
  readonly #peers: ChildProcess[] = []
  readonly #ask: (ask: Record<string, unknown>) => Promise<Answer>

  constructor(build: Build) {
    this.#program = holderProgram(build)
    this.#ask = this.peer()
  }

  /** Starts a holder and waits until it is at the path. */
  async holder(...args: string[]): Promise<Holder> {
    const holder = new Holder(this.#program, [...args, this.path])
    this.#holders.push(holder)
    await holder.says(`at ${this.path}`)
    return holder
  }

  /** A further client process; `command` is what starts it. */
  peer(command: readonly string[] = []): (ask: Record<string, unknown>) => Promise<Answer> {
    // As text: a process of another user may not be able to read it here.
    const script = readFileSync(`${root}/native/holder/test/peer.py`, 'utf8')
    const [program, ...args] = [...command, '/usr/bin/python3', '-c', script]
    const child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#peers.push(child)
    const waiting: ((answer: Answer) => void)[] = []
    createInterface({ input: child.stdout! }).on('line', (line) => waiting.shift()?.(JSON.parse(line) as Answer))
    child.once('exit', () => {
      for (const done of waiting.splice(0)) done({ error: 'the peer ended' })
    })
    return (ask) =>
      new Promise((resolve) => {
        waiting.push(resolve)
        child.stdin!.write(`${JSON.stringify(ask)}\n`)
      })
  }

  /** An operation of peer.py that must succeed. */
  async do(op: string, options: Record<string, unknown> = {}): Promise<Answer> {
    const answer = await this.#ask({ op, ...options })
    if (answer.error !== undefined) throw new Error(`${op} ${JSON.stringify(options)}: ${answer.error}`)
    return answer
  }

  /** The same, whatever comes of it. */
  try(op: string, options: Record<string, unknown> = {}): Promise<Answer> {
    return this.#ask({ op, ...options })
  }

  /** A connection to the holder at the path. */
  async client(): Promise<number> {
    return (await this.do('connect', { path: this.path })).client!
  }

  /** One request on a new connection. */
  async ask(kind: string | number, options: Record<string, unknown> = {}): Promise<Answer> {
    const client = await this.client()
    const answer = await this.do('request', { client, kind, ...options })
    await this.do('close', { thing: client })
    return answer
  }

  /** Puts so many new listening sockets under a name; their ports. */
  async put(name: string, count = 1): Promise<number[]> {
    const made = []
    for (let i = 0; i < count; i++) made.push(await this.do('listener'))
    const answer = await this.ask('put', { body: name, sockets: made.map(({ socket }) => socket) })
    if (answer.status !== '') throw new Error(`put ${name}: ${answer.status}`)
    for (const { socket } of made) await this.do('close', { thing: socket })
    return made.map(({ port }) => port!)
  }

  /** kill -9 for all that run. */
  killHolders(): void {
    for (const { process } of this.#holders.splice(0)) process.kill('SIGKILL')
  }

  close(): void {
    for (const peer of this.#peers) peer.kill('SIGKILL')
    for (const { process } of this.#holders) process.kill('SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }
}
