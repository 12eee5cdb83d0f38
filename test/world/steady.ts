// Runs steady.py in a pod of a sandbox and reads its sum. Must not live here: what is done to the mesh meanwhile.
import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** Outcome → how often; `ok`, or what became of it: `open ECONNREFUSED`, `ECONNRESET`, `cut after no bytes`, `timeout`. */
export type Outcomes = Readonly<Record<string, number>>

export interface SteadySum {
  readonly short: Outcomes
  readonly long: Outcomes
  readonly idle: Outcomes
  /** Seconds of the slowest short exchange, from its connect to its end. */
  readonly slowest: number
  /** Bytes that long connections had back. */
  readonly moved: number
}

const script = readFileSync(new URL('./steady.py', import.meta.url), 'utf8')

/** A load on one echo port that goes on until stop(). */
export class Steady {
  readonly #process: ChildProcess
  readonly #lines: string[] = []
  #told: (() => void) | undefined

  private constructor(command: readonly string[]) {
    this.#process = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: this.#process.stdout! }).on('line', (line) => {
      this.#lines.push(line)
      this.#told?.()
    })
    this.#process.once('exit', () => this.#told?.())
  }

  /** Starts it and waits until all kinds of connections run. `inside` makes a command line run in the pod. */
  static async start(
    inside: (command: readonly string[]) => readonly string[],
    host: string,
    port: number,
    longSeconds = 2,
  ): Promise<Steady> {
    const args = [host, String(port), String(longSeconds)]
    const steady = new Steady(inside(['/usr/bin/python3', '-c', script, ...args]))
    await steady.#line()
    return steady
  }

  /** Ends the load after what is under way. */
  async stop(): Promise<SteadySum> {
    this.#process.stdin!.end('stop\n')
    return JSON.parse(await this.#line()) as SteadySum
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }

  async #line(): Promise<string> {
    while (this.#lines.length === 0) {
      if (this.#process.exitCode !== null) throw new Error(`the load ended by itself (${this.#process.exitCode})`)
      await new Promise<void>((resolve) => (this.#told = resolve))
    }
    return this.#lines.shift()!
  }
}
