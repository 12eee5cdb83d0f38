// What a supervisor and its workers say to each other over Node's IPC channel. No key, no configuration and no traffic goes
// over it: each worker has its own stream from control and its own certificate. Must not live here: who does what with it.

/** The first inherited socket's descriptor: one for each worker, in order, of the first door, then of the next. 0–2 are standard, 3 is the channel. */
export const FIRST_SOCKET = 4
/** Environment of a worker: its number and how many there are, as `0/4`. */
export const WORKER_ENV = 'AMBIT_WORKER'

/** How a worker is, told at each change. */
export interface WorkerState {
  /** It accepts on its socket. */
  readonly listening: boolean
  readonly ready: boolean
  readonly draining: boolean
  /** What readiness waits for. */
  readonly pending: readonly string[]
}

export type Question = 'metrics' | 'dump' | 'status' | 'held' | 'release'

export type ToWorker =
  /** `metrics`, `dump`, `status`, `held`: answered with text, '' for nothing. `release`: close the sockets that are other workers'. */
  | { readonly type: 'ask'; readonly id: number; readonly what: Question; readonly query: string }
  | { readonly type: 'log'; readonly level: string }
  /** Accept on another worker's socket too, while that one is down; or no more. */
  | { readonly type: 'cover'; readonly worker: number; readonly on: boolean }
  /** Take nothing new, end what runs, exit. */
  | { readonly type: 'drain' }

export type ToSupervisor =
  | { readonly type: 'state'; readonly state: WorkerState }
  | { readonly type: 'answer'; readonly id: number; readonly text: string }
  /** The last metrics of one that leaves: its counters must not vanish from the sum. */
  | { readonly type: 'final'; readonly metrics: string }
