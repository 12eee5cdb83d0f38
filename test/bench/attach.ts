// Records the CPU profile of a Node process that runs: SIGUSR1 opens its inspector on loopback of its own network namespace, the
// DevTools protocol does the rest. The process needs no flag and is not restarted, so a profile covers exactly the seconds that are measured.
// Needs the process's user or root. Must not live here: reading a profile (profile.ts).
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** Node's default inspector port. One process per network namespace can hold it. */
const PORT = 9229
const INTERVAL_US = 500
const OPEN_DEADLINE_MS = 5_000
/** What the helper says first. */
const STARTED = 'started\n'

export interface Recording {
  /** Ends it; the text of a .cpuprofile. Rejects if the process ended, or if nothing could be recorded. */
  stop(): Promise<string>
}

/** Resolves once the recording runs. Rejects where the process cannot be reached. */
export async function startRecording(pid: number): Promise<Recording> {
  // The inspector listens in the namespace of the process: a helper goes there.
  const node = fileURLToPath(new URL('../../agent/bin/node', import.meta.url))
  const self = fileURLToPath(import.meta.url)
  const child = spawn('nsenter', [`--net=/proc/${pid}/ns/net`, '--', node, self, '--pid', String(pid)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdin.on('error', () => undefined)
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  const failed = (): Error =>
    new Error(`No profile of process ${pid}: ${err.trim().split('\n').slice(-3).join(' | ') || 'it ended'}`)
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
      if (out.startsWith(STARTED)) resolve()
    })
    void ended.then(() => reject(failed()))
  })
  return {
    async stop() {
      child.stdin.end()
      if ((await ended) !== 0) throw failed()
      return out.slice(STARTED.length)
    },
  }
}

/** The profile of `seconds` from now, as the text of a .cpuprofile. */
export async function recordProfile(pid: number, seconds: number): Promise<string> {
  const recording = await startRecording(pid)
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  return await recording.stop()
}

interface Target {
  readonly webSocketDebuggerUrl: string
}

async function targetOf(pid: number): Promise<Target> {
  const end = performance.now() + OPEN_DEADLINE_MS
  for (;;) {
    try {
      const answer = await fetch(`http://127.0.0.1:${PORT}/json/list`)
      const [target] = (await answer.json()) as Target[]
      if (target) return target
    } catch (error) {
      if (performance.now() > end) throw new Error(`process ${pid} opened no inspector`, { cause: error })
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

interface Answer {
  readonly id?: number
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

/** One DevTools session: commands by number. */
class Session {
  readonly #socket: WebSocket
  readonly #waiting = new Map<number, (message: Answer) => void>()
  #last = 0

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener('message', (event) => {
      const message = JSON.parse(String(event.data)) as Answer
      if (message.id !== undefined) this.#waiting.get(message.id)?.(message)
    })
  }

  static async open(url: string): Promise<Session> {
    const socket = new WebSocket(url)
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', () => reject(new Error(`no session at ${url}`)))
    })
    return new Session(socket)
  }

  send(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (message) => {
        this.#waiting.delete(id)
        if (message.error) reject(new Error(`${method}: ${message.error.message}`))
        else resolve(message.result)
      })
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  close(): void {
    this.#socket.close()
  }
}

/** The helper in the namespace of the process: records until its standard input ends, then writes the profile. */
async function main(): Promise<void> {
  const pid = Number(parseArgs({ options: { pid: { type: 'string' } } }).values.pid)
  process.kill(pid, 'SIGUSR1')
  const { webSocketDebuggerUrl } = await targetOf(pid)
  const session = await Session.open(webSocketDebuggerUrl)
  // Another Node process of this namespace may have held the port already: its profile would be taken for this one's.
  const answer = (await session.send('Runtime.evaluate', { expression: 'process.pid' })) as {
    result?: { value?: number }
  }
  const found = answer.result?.value
  if (found !== ownPid(pid)) throw new Error(`port ${PORT} belongs to process ${found}, not to ${pid}`)
  await session.send('Profiler.enable')
  await session.send('Profiler.setSamplingInterval', { interval: INTERVAL_US })
  await session.send('Profiler.start')
  process.stdout.write(STARTED)
  await new Promise((resolve) => process.stdin.resume().once('end', resolve))
  const { profile } = (await session.send('Profiler.stop')) as { profile: unknown }
  session.close()
  // A profile is megabytes, and writing to a pipe is asynchronous: no process.exit here.
  process.stdout.write(JSON.stringify(profile))
}

/** The process's number in its own pid namespace. */
function ownPid(pid: number): number {
  const line = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1]?.trim().split(/\s+/).at(-1) ?? pid)
}

if (import.meta.main) await main()
