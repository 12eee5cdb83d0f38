// `--workers 2` with `--http`: both doors, HBONE and plaintext, are served by both workers, and both survive the replacement of
// the workers without a lost request. Must not live here: workers alone (workers.test.ts), stopping (drain.test.ts).
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SERVICE } from '../../agent/waypoint/testing.ts'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { Load } from '../world/load.ts'
import { processTree, Stage, sumOf, until, type WaypointProcess } from '../world/waypoint-process.ts'

const PORT = 18_080

let stage: Stage

beforeEach(async () => {
  stage = await Stage.open()
  const server = app(echo('app'))
  await stage.world.endpoint(10, await listenOn(server, stage.world.address(10)))
  stage.world.onClose(() => {
    server.close()
    server.closeAllConnections()
  })
  stage.publish()
})

afterEach(async () => {
  await stage.close()
})

const workersOf = (program: WaypointProcess): number[] => processTree(program.pid).slice(1)

/** Established TCP connections of a process with this local port. */
function established(pid: number, port: number): number {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
      } catch {
        return undefined
      }
    }),
  )
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync(`/proc/${pid}/net/tcp`, 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(local) && fields[3] === '01' && inodes.has(fields[9])).length
}

/** Keep-alive connections in plaintext, each request after request, opened anew when an answer says `connection: close`. */
class PlainLoad {
  answered = 0
  reopened = 0
  /** Requests without a whole answer, connections that were refused: what must stay empty. */
  readonly lost: string[] = []
  readonly statuses = new Map<number, number>()
  readonly #done: Promise<void>[] = []
  #stopped = false

  constructor(host: string, connections: number) {
    for (let i = 0; i < connections; i++) this.#done.push(this.#run(host))
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#done)
  }

  async #run(host: string): Promise<void> {
    while (!this.#stopped) {
      await this.#connection(host)
      this.reopened++
    }
  }

  #connection(host: string): Promise<void> {
    return new Promise((resolve) => {
      let text = ''
      let open = true
      const socket = connect(PORT, host)
      const send = (): void => {
        if (this.#stopped) return void socket.end()
        open = true
        socket.write('GET /plain HTTP/1.1\r\nhost: api\r\n\r\n')
      }
      socket.on('connect', send)
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
        const head = text.indexOf('\r\n\r\n')
        if (head < 0) return
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1] ?? 0)
        if (text.length < head + 4 + length) return
        const status = Number(text.slice(9, 12))
        this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
        this.answered++
        open = false
        const close = /\r\nconnection: close/i.test(text.slice(0, head + 2))
        text = ''
        if (close) socket.end()
        else send()
      })
      let error = ''
      socket.on('error', (reason) => (error = reason.message))
      socket.on('close', () => {
        if (open) this.lost.push(`${error || 'closed'} after ${text.length} bytes: ${text.slice(0, 60)}`)
        resolve()
      })
    })
  }
}

// A second chance would hide what is lost now and then.
describe('a waypoint of several workers with a plaintext door', { retry: 0 }, () => {
  it('serves both doors by all workers, and is reloaded by SIGHUP without losing a request on either', async () => {
    const host = stage.world.address(2)
    const program = await stage.start(['--workers', '2', '--http', `${host}:${PORT}=${SERVICE}:80`])
    await program.ready()
    const old = workersOf(program)
    const tunnels = new Load(stage, { connections: 20, sessions: 20, hosts: [2] })
    const plain = new PlainLoad(host, 20)
    await until(() => tunnels.answered > 300 && plain.answered > 300)
    // Both workers took connections of both doors.
    for (const pid of old) {
      expect(established(pid, 15_008)).toBeGreaterThan(0)
      expect(established(pid, PORT)).toBeGreaterThan(0)
    }
    program.child.kill('SIGHUP')
    await until(() => program.said('the workers are replaced').length > 0)
    const [before, plainBefore] = [tunnels.answered, plain.answered]
    await until(() => tunnels.answered > before + 300 && plain.answered > plainBefore + 300)
    const now = workersOf(program)
    expect(now).toHaveLength(2)
    expect(now.filter((pid) => old.includes(pid))).toEqual([])
    for (const pid of now) expect(established(pid, 15_008) + established(pid, PORT)).toBeGreaterThan(0)
    await Promise.all([tunnels.stop(), plain.stop()])
    expect([...tunnels.lost, ...plain.lost]).toEqual([])
    expect([...tunnels.statuses.keys(), ...plain.statuses.keys()]).toEqual([200, 200])
    expect(plain.reopened).toBeGreaterThan(20)
    const { body } = await program.get('metrics', '/metrics')
    expect(sumOf(body, 'istio_requests_total', 'connection_security_policy="none"')).toBe(plain.answered)
    expect(sumOf(body, 'istio_requests_total')).toBe(plain.answered + tunnels.answered)
    expect(sumOf(body, 'ambit_waypoint_worker_restarts_total')).toBe(0)
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    expect(program.broken).toEqual([])
  })
})
