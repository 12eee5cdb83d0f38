// The flags of `ambit waypoint`, and the numbers they mean. Must not live here: what they start (main.ts).
import { availableParallelism } from 'node:os'
import { Command } from 'commander'
import { envInteger, type Environment } from '../base/env.ts'
import { AmbitError } from '../base/errors.ts'

export interface WaypointOptions {
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly control: string
  readonly rootCert: string
  readonly tokenFile: string
  readonly listen: string
  readonly http: readonly string[]
  readonly metrics: string
  readonly ready: string
  readonly admin: string
  readonly stateDir?: string
  readonly node: string
  readonly podName: string
  readonly clusterId: string
  readonly drainSeconds: string
  readonly drainDelaySeconds: string
  readonly logLevel: string
  readonly workers: string
  readonly maxConnections: string
  readonly maxRequests: string
  readonly maxMemory: string
  readonly headTimeout: string
  readonly bodyIdle: string
}

/** The flags with numbers, as numbers. */
export interface WaypointLimits {
  readonly workers: number
  readonly drainMs: number
  /** After SIGTERM it serves on for so long, not ready, until everybody has heard that it leaves. */
  readonly drainDelayMs: number
  /** Of one process: the flags' values are the whole waypoint's and are divided among its workers. */
  readonly maxConnections: number
  readonly maxRequests: number
  /** Bytes; 0: none. */
  readonly maxMemory: number
  /** A request head must be whole so long after its first byte. */
  readonly headTimeoutMs: number
  /** A request body may stop for so long. */
  readonly bodyIdleTimeoutMs: number
}

/** A worker costs 60 MB before its first request: more than that many are a mistake. */
export const MAX_WORKERS = 64
/** What 'auto' gives a worker at least, of the cgroup's memory: a node of 64 cores must not start what does not fit. */
const WORKER_MEMORY = 128 * 2 ** 20
/** More than any machine has. */
const MAX_CORES = 65_536
/** Of the cgroup's memory: the kernel kills at all of it. */
const MEMORY_SHARE = 0.85

/** Parses the flags; `run` gets them. */
export function waypointCommand(run: (options: WaypointOptions) => Promise<void>): Command {
  return new Command('ambit waypoint')
    .description('The L7 program: takes HBONE, authorises and routes HTTP, forwards over HBONE.')
    .requiredOption('--name <gateway>', 'name of the Gateway this waypoint serves')
    .requiredOption('--namespace <namespace>', 'namespace of the Gateway')
    .requiredOption('--service-account <name>', 'own service account')
    .requiredOption('--control <host:port>', 'address of the control plane')
    .requiredOption('--root-cert <file>', 'PEM file with the mesh roots')
    .requiredOption('--token-file <file>', 'own token, read again at every connect')
    .option('--listen <host:port>', 'HBONE listener', '[::]:15008')
    .option(
      '--http <listener>',
      'plaintext HTTP listener, HOST:PORT=NAMESPACE/HOSTNAME:PORT of the service it serves; may be repeated',
      (text: string, all: string[]) => [...all, text],
      [],
    )
    .option('--metrics <host:port>', 'GET /metrics', '[::]:15020')
    .option('--ready <host:port>', 'GET /healthz/ready', '[::]:15021')
    .option('--admin <address>', 'admin server, on loopback or unix:PATH', '127.0.0.1:15000')
    .option('--state-dir <dir>', 'keeps the last good configuration over a restart')
    .option('--node <name>', 'node this waypoint runs on, for locality', process.env['NODE_NAME'] ?? '')
    .option('--pod-name <name>', 'own pod name', process.env['POD_NAME'] ?? process.env['HOSTNAME'] ?? 'waypoint')
    .option('--cluster-id <id>', 'cluster name sent to control', 'Kubernetes')
    .option('--drain-seconds <n>', 'time for requests in flight after SIGTERM', '20')
    .option(
      '--drain-delay-seconds <n>',
      'after SIGTERM, time to serve on as if nothing were, not ready, until all agents know of it',
      '0',
    )
    .option(
      '--workers <n>',
      "processes that share the port; 'auto': one per core the cgroup gives and 128 MiB of its memory",
      '1',
    )
    .option('--max-connections <n>', 'connections open at once; more are refused', '16384')
    .option('--max-requests <n>', 'requests in flight; more are answered 503', '20000')
    .option(
      '--max-memory <bytes>',
      "resident memory above which nothing more is taken, as 512Mi; 'auto': of the cgroup's limit; 0: none",
      'auto',
    )
    .option('--head-timeout <seconds>', 'an HTTP/1.1 request head must be whole by then; else 408', '60')
    .option('--body-idle <seconds>', 'an HTTP/1.1 request body may stop for so long; else 408', '300')
    .option('--log-level <level>', 'trace, debug, info, warn, error', 'info')
    .addHelpText(
      'after',
      '\nSIGTERM drains and ends; SIGHUP replaces the workers one after the other without losing a request.\n' +
        'AMBIT_CPU_LIMIT: whole cores that --workers auto may count on, where the cgroup does not say so.\n' +
        '\nExample:\n  ambit waypoint --name waypoint --namespace shop --service-account waypoint \\\n    --control control.ambit-system.svc:15012 --root-cert /var/run/ambit/root-cert.pem --token-file /var/run/secrets/tokens/token\n',
    )
    .action(run)
}

/** What the machine has; a test says so itself. */
export interface Machine {
  /** Cores this process may use (libuv asks the scheduler and the cgroup). */
  readonly cores: number
  /** The cgroup's memory, bytes; 0: no limit. */
  readonly memory: number
}

/**
 * `AMBIT_CPU_LIMIT`: whole cores of the container's limit, by the downward API, since libuv does not find the cgroup from inside
 * a container where the node has cgroup v1.
 */
export function thisMachine(environment: Environment = process.env): Machine {
  const memory = process.constrainedMemory()
  const limit = envInteger('AMBIT_CPU_LIMIT', MAX_CORES, { min: 1, max: MAX_CORES }, environment)
  // Without a limit the kernel says a number close to 2^63.
  return { cores: Math.min(availableParallelism(), limit), memory: memory < 2 ** 50 ? memory : 0 }
}

/** Throws WAYPOINT_FLAG_INVALID naming the flag. */
export function waypointLimits(options: WaypointOptions, machine: Machine = thisMachine()): WaypointLimits {
  const workers =
    options.workers === 'auto'
      ? Math.max(1, Math.min(MAX_WORKERS, machine.cores, Math.floor((machine.memory || Infinity) / WORKER_MEMORY)))
      : count('--workers', options.workers, 1, MAX_WORKERS)
  const memory =
    options.maxMemory === 'auto' ? Math.floor(machine.memory * MEMORY_SHARE) : bytes('--max-memory', options.maxMemory)
  return {
    workers,
    drainMs: count('--drain-seconds', options.drainSeconds, 0, 86_400) * 1_000,
    drainDelayMs: count('--drain-delay-seconds', options.drainDelaySeconds, 0, 3_600) * 1_000,
    maxConnections: Math.ceil(count('--max-connections', options.maxConnections, 1, 1e6) / workers),
    maxRequests: Math.ceil(count('--max-requests', options.maxRequests, 1, 1e7) / workers),
    maxMemory: Math.floor(memory / workers),
    headTimeoutMs: count('--head-timeout', options.headTimeout, 1, 86_400) * 1_000,
    bodyIdleTimeoutMs: count('--body-idle', options.bodyIdle, 1, 86_400) * 1_000,
  }
}

function count(flag: string, text: string, from: number, to: number): number {
  const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : NaN
  if (value >= from && value <= to) return value
  throw invalid(flag, text, `Write a whole number from ${from} to ${to}.`)
}

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1e3, M: 1e6, G: 1e9, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 }

/** A quantity of memory as Kubernetes writes it. */
function bytes(flag: string, text: string): number {
  const [, digits, unit = ''] = /^([0-9]{1,15})(k|M|G|Ki|Mi|Gi)?$/.exec(text) ?? []
  if (digits === undefined) throw invalid(flag, text, "Write bytes, 512Mi, 2Gi, 0 for none, or 'auto'.")
  return Number(digits) * (UNITS[unit] ?? 1)
}

function invalid(flag: string, text: string, hint: string): AmbitError {
  return new AmbitError('WAYPOINT_FLAG_INVALID', `${flag} cannot be '${text.slice(0, 64)}'.`, { hint })
}
