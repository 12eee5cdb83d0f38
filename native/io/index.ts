// The door to the addon `ambit_io`: its raw interface, the numbers both sides know, and its loading. Results are non-negative or
// −errno. Must not live here: anything that decides; agent/io/native is its only user.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'

/** Kinds of events, four words each: kind, connection or listener, two arguments (native/io/src/engine.h). */
export const ACCEPTED = 1
export const CONNECTED = 2
export const HELLO = 3
export const SECURE = 4
export const READ = 5
export const DRAINED = 6
export const ENDED = 7
export const CLOSED = 8
export const ACCEPT_FAILED = 9

/** Ends that are no errno. */
export const CLEAN_END = 0
export const CUT = 10_001
export const TRUNCATED = 10_002
export const TLS_FAILED = 10_003
export const HANDSHAKE_CLOSED = 10_004

/** Commands, four words each: operation (a write's memory region in the next byte), connection, two arguments. */
export const WRITE = 1
export const END = 2
export const ABORT = 3
export const RESUME = 4
export const CONTEXT = 5
export const REFUSE = 6
export const ALLOW = 7

export const REGION_ARENA = 0
export const REGION_SLAB = 1
export const REGION_COPIES = 2

/** Bits of a connection's flag byte. */
export const PAUSED = 1
export const WAITING = 2
export const ASKED = 4

/** Memory both sides see; the addon keeps it alive. */
export interface SharedMemory {
  /** Bytes of one round of reads. */
  readonly arena: Uint8Array
  /** What codecs generate. */
  readonly slab: Uint8Array
  /** What the transport copies of other arrays. */
  readonly copies: Uint8Array
  readonly events: Int32Array
  readonly commands: Int32Array
  /** [0]: number of commands given. */
  readonly control: Int32Array
  /** Per connection: bytes accepted and not taken by the kernel. Its length bounds the connections open at once. */
  readonly pending: Uint32Array
  readonly flags: Uint8Array
  /** Per connection: when bytes last moved, in tenths of a second of the monotonic clock. */
  readonly stamps: Uint32Array
}

export interface NativeListenOptions {
  /** ≥ 0: a duplicate of it is used. */
  readonly fd: number
  /** 4 or 16 bytes. */
  readonly ip: Uint8Array | undefined
  readonly port: number
  readonly path: string | undefined
  readonly backlog: number
  readonly reusePort: boolean
  readonly ipv6Only: boolean
  /** Open connections at once; further ones are reset and counted. */
  readonly most: number
  /** In wire format, empty for none; absent: no TLS. */
  readonly alpn: Uint8Array | undefined
  readonly request: boolean
  /** 0x0303 or 0x0304. */
  readonly minVersion: number
}

export interface NativeConnectOptions {
  /** ≥ 0: a socket not yet connected, owned by the addon from here on, also when this fails. */
  readonly fd: number
  readonly ip: Uint8Array | undefined
  readonly port: number
  readonly path: string | undefined
  readonly source: Uint8Array | undefined
  readonly tls:
    | {
        readonly alpn: Uint8Array
        readonly serverName: string
        readonly sessionKey: string
        readonly minVersion: number
      }
    | undefined
}

export interface NativePeer {
  readonly alpn: string
  readonly serverName: string
  readonly certificates: readonly Uint8Array[]
  readonly resumed: boolean
}

export interface NativeStatistics {
  readonly connections: number
  readonly listeners: number
  /** Chunks of queued bytes, 16 KiB each. */
  readonly chunks: number
  /** Connections with TLS, of the process. */
  readonly tls: number
  readonly contexts: number
  readonly turns: number
  readonly events: number
  readonly reads: number
  readonly sends: number
}

/** System calls a test build can make fail (native/io/src/sys.h). */
export const CALLS = { accept: 0, connect: 1, recv: 2, send: 3, epollCtl: 4, socket: 5, alloc: 6 } as const

export interface NativeIo {
  /** Once: memory, and what a turn calls with the number of its events. */
  start(memory: SharedMemory, onTurn: (count: number) => void): void
  /** Carries out the first `count` commands now. */
  flush(count: number): void
  listen(options: NativeListenOptions): number
  stop(listener: number): number
  pause(listener: number, paused: boolean): number
  /** Connections turned away at the bound. */
  refused(listener: number): number
  /** Fills 18 bytes: address (16, v4-mapped for IPv4), port. */
  bound(listener: number, to: Uint8Array): number
  connect(options: NativeConnectOptions): number
  detach(connection: number): number
  fd(connection: number): number
  /** Fills 36 bytes: the local address, then the peer's. */
  names(connection: number, to: Uint8Array): number
  peer(connection: number): NativePeer | undefined
  /** What TLS said of a connection that failed. */
  error(connection: number): string
  /** PEM of certificate, key and roots; a text says what is wrong with them. */
  context(certificate: string, key: string, trust: string): number | string
  dropContext(context: number): void
  stats(): NativeStatistics
  strerror(errno: number): string
  /** Gives memory that was freed back to the kernel; tens of milliseconds after thousands of connections. */
  trim(): void
  /** Test builds only: after `skip` calls, `count` calls fail with `error`, or (error 0) take at most `limit` bytes. */
  fault?(call: number, error: number, skip: number, count: number, limit: number): void
  injected?(): number
}

/** Where the build puts the addon, as seen from this file; AMBIT_IO_ADDON names another build of it (sanitizers, faults). */
export const addonPath =
  process.env['AMBIT_IO_ADDON'] ?? new URL('../../build/Release/ambit_io.node', import.meta.url).pathname

let loaded: NativeIo | undefined

/** The addon, loaded at first use. Throws with the way out when it is not there. */
export function nativeIo(): NativeIo {
  if (loaded !== undefined) return loaded
  if (!existsSync(addonPath)) throw new Error(`The addon ${addonPath} is not built; run native/build.sh.`)
  loaded = createRequire(import.meta.url)(addonPath) as NativeIo
  return loaded
}
