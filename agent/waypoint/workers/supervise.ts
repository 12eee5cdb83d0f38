// `ambit waypoint --workers N`: the small process in front of N workers. It holds the sockets and serves what is asked of the
// whole waypoint (metrics, readiness, admin); traffic, configuration and keys are the workers' alone. Must not live here: when
// workers are started and ended (crew.ts), serving (program.ts).
import { systemClock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { Lifecycle } from '../../base/lifecycle.ts'
import type { Logger } from '../../base/log.ts'
import {
  dumpRoutes,
  heldRoutes,
  loggingRoutes,
  metricsRoutes,
  openAdmin,
  readyRoutes,
  statusRoutes,
} from '../../telemetry/admin.ts'
import { Metrics } from '../../telemetry/exposition.ts'
import type { Door } from '../doors.ts'
import type { WaypointLimits, WaypointOptions } from '../options.ts'
import { Crew } from './crew.ts'
import { Lines } from './lines.ts'

export interface SuperviseOptions {
  /** As given to this program: the workers get the same. */
  readonly argv: readonly string[]
  readonly options: WaypointOptions
  readonly limits: WaypointLimits
  readonly doors: readonly Door[]
  readonly log: Logger
}

/** Runs until it is told to stop; resolves with the exit code. */
export async function supervise({ argv, options, limits, doors, log }: SuperviseOptions): Promise<number> {
  const { workers: count, drainMs, drainDelayMs } = limits
  // Workers have their own deadline; this one is for those that do not keep it.
  const lifecycle = new Lifecycle({
    deadlineMs: drainDelayMs + drainMs + 10_000,
    onProblem: (step, error) => log.warn({ step, error: messageOf(error) }, 'stopping went wrong'),
  })
  const metrics = new Metrics('waypoint', '0.1.0')
  const restarts = metrics.counter({
    name: 'ambit_waypoint_worker_restarts_total',
    help: 'Workers that died and were started again.',
    labels: ['worker'],
  })
  for (let worker = 0; worker < count; worker++) restarts.with([String(worker)])
  const gauge = metrics.gauge({
    name: 'ambit_waypoint_workers',
    help: 'Worker processes by what they do: serving, starting, replacement, draining.',
    labels: ['state'],
  })
  const lines = new Lines()
  let hopeless = false
  const crew = new Crew({
    count,
    doors: doors.map((door) => door.at),
    argv,
    clock: systemClock,
    log,
    output: (source) => lines.add(source),
    onRestart(slot) {
      restarts.with([String(slot)]).value++
    },
    onHopeless(how) {
      if (hopeless) return
      hopeless = true
      log.fatal({ how }, 'no worker could start')
      void lifecycle.stop('no worker could start')
    },
  })
  metrics.beforeScrape(() => {
    const status = crew.status()
    for (const role of ['serving', 'starting', 'replacement', 'draining']) {
      gauge.with([role]).value = status.filter((worker) => worker.role === role).length
    }
  })
  const merged = { text: async () => await crew.metrics(await metrics.text()) }
  const logging = loggingRoutes(log)
  const level = logging['/logging'] as NonNullable<(typeof logging)[string]>
  const servers = [
    await openAdmin({ listen: options.metrics, routes: metricsRoutes(merged), localOnly: false, log }),
    await openAdmin({ listen: options.ready, routes: readyRoutes(crew), localOnly: false, log }),
    await openAdmin({
      listen: options.admin,
      localOnly: true,
      log,
      routes: {
        ...metricsRoutes(merged),
        ...readyRoutes(crew),
        // Each worker has its own stream: the first one stands for all.
        ...statusRoutes(async () => ({ ...((await crew.first('status')) as object), workers: crew.status() })),
        ...heldRoutes((query) => crew.first('held', query.toString())),
        ...dumpRoutes(async () => ({ workers: crew.status(), dumps: await crew.dumps() })),
        '/logging': {
          ...level,
          async handle(query) {
            const reply = await level.handle(query)
            const wanted = query.get('level')
            if (reply.status === 200 && wanted !== null) crew.broadcast({ type: 'log', level: wanted })
            return reply
          },
        },
      },
    }),
  ]
  lifecycle.onStop('output', () => lines.flushed())
  lifecycle.onStop('servers', async () => {
    for (const server of servers) await server.close()
  })
  lifecycle.onStop('workers', () => crew.stop())
  lifecycle.onStop('notice', () => {
    crew.leave()
    return new Promise((resolve) => systemClock.after(drainDelayMs, resolve))
  })
  lifecycle.onSignals()
  lifecycle.onReload(() => void crew.replace())
  crew.start()
  log.info({ workers: count, listen: doors.map((door) => door.at) }, 'waypoint supervisor started')
  const ended = await lifecycle.ended
  crew.kill()
  log.info(ended, 'waypoint stopped')
  return ended.clean && !hopeless ? 0 : 1
}
