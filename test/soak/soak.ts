// A long load on a real waypoint, and whether it keeps anything: requests on kept-alive connections and tunnels opened and closed,
// with the heap and the resident size sampled. Run by soak.test.ts (short) and main.ts (long). Must not live here: limits of time.
import { app, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { Load } from '../world/load.ts'
import { pause, Stage, sumOf, tunnel } from '../world/waypoint-process.ts'

export interface SoakOptions {
  readonly requests: number
  readonly tunnels: number
  /** Ends earlier when this is over. */
  readonly seconds: number
  readonly workers: number
  /** Told each sample. */
  onSample?(sample: Sample): void
}

export interface Sample {
  readonly requests: number
  readonly tunnels: number
  /** Bytes; the smallest of some readings, as a heap is a saw-tooth. */
  readonly heap: number
  readonly resident: number
}

export interface SoakResult {
  readonly samples: readonly Sample[]
  readonly lost: readonly string[]
  readonly requests: number
  readonly tunnels: number
  readonly seconds: number
  /** What was left once all clients were gone. */
  readonly left: Readonly<Record<string, number>>
}

const LEFT = ['ambit_waypoint_requests_active', 'ambit_waypoint_connections', 'ambit_waypoint_opaque_active'] as const

export async function soak(options: SoakOptions): Promise<SoakResult> {
  const stage = await Stage.open()
  try {
    const server = app((_request, response) => response.end('well'))
    await stage.world.endpoint(10, await listenOn(server, stage.world.address(10)))
    stage.world.onClose(() => {
      server.close()
      server.closeAllConnections()
    })
    stage.publish()
    const program = await stage.start(['--workers', String(options.workers)])
    program.keepAccess = false
    await program.ready()
    const started = Date.now()
    const load = new Load(stage, { connections: 24, sessions: 6, hosts: [2] })
    let tunnels = 0
    let stopped = false
    const churn = async (): Promise<void> => {
      const session = await stage.session()
      while (!stopped && tunnels < options.tunnels) {
        const stream = await tunnel(session)
        stream.resume()
        tunnels++
        // Every way out of a tunnel: a clean end, a reset, with a request begun and without.
        if (tunnels % 3 === 0) stream.write('GET / HTTP/1.1\r\nhost: a')
        if (tunnels % 2 === 0) stream.close(8)
        else stream.end()
        await new Promise<void>((resolve) => {
          if (stream.closed) resolve()
          else stream.once('close', () => resolve())
        })
      }
      session.destroy()
    }
    const churns = [churn(), churn(), churn(), churn()]
    const samples: Sample[] = []
    const readings: { heap: number; resident: number }[] = []
    const over = (): boolean =>
      Date.now() - started > options.seconds * 1_000 ||
      (load.answered >= options.requests && tunnels >= options.tunnels)
    while (!over()) {
      await pause(300)
      const { body } = await program.get('metrics', '/metrics')
      readings.push({ heap: sumOf(body, 'nodejs_heap_size_used_bytes'), resident: program.rss() })
      if (readings.length < 5) continue
      const sample = {
        requests: load.answered,
        tunnels,
        heap: Math.min(...readings.map(({ heap }) => heap)),
        resident: Math.min(...readings.map(({ resident }) => resident)),
      }
      readings.length = 0
      samples.push(sample)
      options.onSample?.(sample)
    }
    stopped = true
    await Promise.all([load.stop(), ...churns])
    await pause(1_500)
    const { body } = await program.get('metrics', '/metrics')
    const left = Object.fromEntries(LEFT.map((name) => [name, sumOf(body, name)]))
    const seconds = (Date.now() - started) / 1_000
    return { samples, lost: load.lost, requests: load.answered, tunnels, seconds, left }
  } finally {
    await stage.close()
  }
}

/** Growth from the first third's end to the end, bytes: the smallest of each last third against the smallest of the middle one. */
export function growth(samples: readonly Sample[], of: (sample: Sample) => number): number {
  const third = Math.max(1, Math.floor(samples.length / 3))
  const middle = Math.min(...samples.slice(third, 2 * third).map(of))
  return Math.min(...samples.slice(2 * third).map(of)) - middle
}
