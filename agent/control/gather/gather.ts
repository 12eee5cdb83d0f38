// Where configuration comes from: one interface for a folder of YAML (files.ts) and, later, the Kubernetes API.
// Must not live here: publishing it (publish/), translating it (config/).
import type { Problem } from '../../config/problem.ts'
import type { Translation } from '../../config/translation.ts'

/** All that is known at one moment. Immutable; a later one replaces it whole. */
export interface Snapshot {
  /** Grows by one with every snapshot. */
  readonly version: number
  readonly translation: Translation
  /** Everything found, of documents and of references, sorted by place. */
  readonly problems: readonly Problem[]
}

export interface Gather {
  /**
   * Reads everything once and calls back before it resolves, then again after each change that alters the result.
   * Rejects with CONFIG_UNREADABLE when a source cannot be read at all; later failures are problems in a snapshot.
   */
  start(onSnapshot: (snapshot: Snapshot) => void): Promise<void>
  /** No call-back runs after it resolves. */
  stop(): Promise<void>
}
