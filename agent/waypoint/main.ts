// The `ambit waypoint` program: one process that serves, or, with --workers, a supervisor of several. Must not live here:
// behaviour, how a serving process is put together (program.ts), how processes live (workers/).
import { systemClock } from '../base/clock.ts'
import { messageOf, AmbitError } from '../base/errors.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { openLog, type Logger } from '../base/log.ts'
import {
  dumpRoutes,
  heldRoutes,
  loggingRoutes,
  metricsRoutes,
  openAdmin,
  readyRoutes,
  statusRoutes,
} from '../telemetry/admin.ts'
import { doorsOf, openDoor, type Door } from './doors.ts'
import { waypointCommand, waypointLimits, type WaypointLimits, type WaypointOptions } from './options.ts'

/** Runs the program; resolves with its exit code once it has stopped. */
export async function main(argv: readonly string[]): Promise<number> {
  let code = 0
  const command = waypointCommand(async (options) => {
    const log = openLog({ program: 'waypoint', level: options.logLevel })
    try {
      const limits = waypointLimits(options)
      const doors = doorsOf(options)
      code =
        limits.workers > 1
          ? await (await import('./workers/supervise.ts')).supervise({ argv, options, limits, doors, log })
          : await serve(options, limits, doors, log)
    } catch (error) {
      log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
      code = 1
    }
  })
  await command.parseAsync(argv, { from: 'user' })
  return code
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => systemClock.after(ms, resolve))
}

/** Everything in this process. */
async function serve(
  options: WaypointOptions,
  limits: WaypointLimits,
  doors: readonly Door[],
  log: Logger,
): Promise<number> {
  const lifecycle = new Lifecycle({
    deadlineMs: limits.drainDelayMs + limits.drainMs + 5_000,
    onProblem: (step, error) => log.warn({ step, error: messageOf(error) }, 'stopping went wrong'),
  })
  // Not above: a supervisor has no use for gRPC, TLS and the rest.
  const { startProgram } = await import('./program.ts')
  const program = await startProgram(options, limits, log, () => {})
  const { metrics, readiness } = program
  const servers = [
    await openAdmin({ listen: options.metrics, routes: metricsRoutes(metrics), localOnly: false, log }),
    await openAdmin({ listen: options.ready, routes: readyRoutes(readiness), localOnly: false, log }),
    await openAdmin({
      listen: options.admin,
      localOnly: true,
      log,
      routes: {
        ...metricsRoutes(metrics),
        ...readyRoutes(readiness),
        ...statusRoutes(() => program.status()),
        ...heldRoutes((query) => program.held(query)),
        ...dumpRoutes(() => program.dump()),
        ...loggingRoutes(log),
      },
    }),
  ]
  for (const door of doors) await openDoor(program.waypoint, door, door.at, log)
  lifecycle.onStop('servers', async () => {
    for (const server of servers) await server.close()
  })
  program.run(lifecycle)
  lifecycle.onStop('notice', () => {
    readiness.drain()
    return pause(limits.drainDelayMs)
  })
  lifecycle.onSignals()
  lifecycle.onReload(() => log.info('nothing to reload: configuration, token and certificates are live'))
  log.info({ identity: program.identity, restored: program.restored }, 'waypoint started')
  const ended = await lifecycle.ended
  log.info(ended, 'waypoint stopped')
  return ended.clean ? 0 : 1
}
