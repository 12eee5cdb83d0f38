// A sandbox of either kind in this process: answers the other commands, ends when told. Must not live here: what runs
// (sandbox.ts, kube/cluster.ts), the verbs (commands.ts).
import { AmbitError } from '../base/errors.ts'
import { serveLocalApi, type Ask } from './local-api.ts'
import type { Paths } from './programs.ts'

/** What runs in this process: the mesh on its own, or a real Kubernetes. */
export interface Running {
  readonly paths: Paths
  readonly ended: boolean
  readonly ready: boolean
  status(): unknown
  down(): Promise<string[]>
}

/** A sandbox with its local API, and the promise that it was told to end. */
export interface Served<T extends Running> {
  readonly sandbox: T
  /** Resolves with the exit code once it was told to end and everything is removed. */
  readonly ended: Promise<number>
  /** Tells it to end. */
  stop(): void
}

/** Brings a sandbox up in this process; Ctrl-C, SIGTERM, SIGHUP and `sandbox down` end it, also while it comes up. */
export async function serve<T extends Running>(
  start: (stopped: Promise<void>) => Promise<T>,
  commandOf: (sandbox: T, ask: Ask) => readonly string[],
): Promise<Served<T>> {
  const told = Promise.withResolvers<void>()
  const stop = (): void => told.resolve()
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, stop)
  let early = false
  void told.promise.then(() => (early = true))
  const sandbox = await start(told.promise)
  const server = await serveLocalApi(sandbox.paths.socket, async (ask) => {
    switch (ask.op) {
      case 'status':
        return sandbox.status()
      case 'ready':
        return sandbox.ready
      case 'exec':
        return commandOf(sandbox, ask)
      case 'down':
        stop()
        return true
      default:
        throw new AmbitError('SANDBOX_UNKNOWN_OP', `there is no operation '${String(ask.op)}'`)
    }
  })
  const ended = told.promise.then(async () => {
    server.close()
    const left = await sandbox.down()
    for (const signal of signals) process.off(signal, stop)
    for (const one of left) process.stderr.write(`ambit sandbox: not removed: ${one}\n`)
    return left.length === 0 ? 0 : 1
  })
  if (early) await ended
  return { sandbox, ended, stop }
}
