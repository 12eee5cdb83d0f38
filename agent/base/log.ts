// Logging: one pino root per program, one child per room. JSON lines on stdout, no worker transports (a crash must
// not lose the lines that explain it). Must not live here: access logs (telemetry/), messages for a person (cli/print).
import { pino, type Logger } from 'pino'

export type { Logger }

export interface LogOptions {
  /** The program: `agent`, `waypoint`, `control`, `sandbox`. */
  readonly program: string
  /** pino level names; default `info`. */
  readonly level?: string
  /** File descriptor to write to; default 1. */
  readonly fd?: number
}

/** Makes the root logger of a program. Lines carry `program`, `level` as a word and `time` in ISO 8601. */
export function openLog(options: LogOptions): Logger {
  return pino(
    {
      level: options.level ?? process.env['AMBIT_LOG_LEVEL'] ?? 'info',
      base: { program: options.program },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
    },
    pino.destination({ fd: options.fd ?? 1, sync: true }),
  )
}

/** A logger that writes nothing, for tests and pure callers. */
export const silentLog: Logger = pino({ level: 'silent' })
