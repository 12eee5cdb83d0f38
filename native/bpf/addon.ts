// The door to the compiled addon: its raw interface and its loading. Everything here is one thin step over libbpf or a
// system call; results are non-negative or −errno. Must not live here: anything a user of the library should call.
import { createRequire } from 'node:module'
import { existsSync } from 'node:fs'
import { BpfError } from './errors.ts'

export interface NativeProgram {
  readonly name: string
  readonly section: string
  /** enum bpf_prog_type */
  readonly type: number
  /** enum bpf_attach_type */
  readonly attachType: number
  readonly autoload: boolean
}

export interface NativeMap {
  readonly name: string
  /** enum bpf_map_type */
  readonly type: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly flags: number
  /** Where LIBBPF_PIN_BY_NAME would pin it; empty if the object does not ask for a pin. */
  readonly pinPath: string
  /** Holds global data (.rodata, .data, .bss). */
  readonly internal: boolean
  /** Maps of maps, before load: what the object says of the inner ones. */
  readonly inner?: Pick<NativeMap, 'type' | 'keySize' | 'valueSize' | 'maxEntries' | 'flags'>
}

/** A struct bpf_object. Indices are the order of programs() and maps(). */
export interface NativeObject {
  programs(): NativeProgram[]
  maps(): NativeMap[]
  setAutoload(program: number, on: boolean): number
  setMaxEntries(map: number, entries: number): number
  setPinPath(map: number, path: string | null): number
  reuse(map: number, fd: number): number
  initial(map: number): Uint8Array | undefined
  setInitial(map: number, bytes: Uint8Array): number
  /** Verifies and loads on a worker thread; `log` is all that libbpf printed meanwhile. */
  load(kernelLogLevel: number): Promise<{ result: number; log: string }>
  mapFd(map: number): number
  programFd(program: number): number
  close(): void
}

export interface NativeInfo {
  readonly type: number
  readonly id: number
  readonly name: string
  /** Maps only. */
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly flags: number
  /** Programs: hex tag; instructions the verifier went through (kernel 5.16, before it 0). */
  readonly tag: string
  readonly instructions: number
  /** Programs: while statistics were enabled. */
  readonly runs: bigint
  readonly runNanoseconds: bigint
  /** Programs: nanoseconds since boot. */
  readonly loadedAt: bigint
  /** Links: program id, attach type, cgroup id, netns inode or interface index. */
  readonly programId: number
  readonly attachType: number
  readonly target: bigint
}

export interface NativeRing {
  ref(): void
  unref(): void
  close(): void
}

export interface NativeSocketOptions {
  netns: number
  family: number
  type: number
  /** Packed address of the family, empty for none. */
  bind: Uint8Array
  port: number
  /** Backlog; −1 = do not listen. */
  backlog: number
  ipv6Only: number
  reusePort: boolean
  reuseAddress: boolean
  transparent: boolean
  nonBlocking: boolean
  mark: number
}

export interface NativeInterface {
  readonly index: number
  readonly name: string
  /** ARPHRD_* */
  readonly type: number
  readonly loopback: boolean
}

export type BatchOperation = 'lookup' | 'take' | 'update' | 'delete'

/** Operation, map, place to go on from, room for the next such place, keys, values, their number, flags. */
export type NativeBatch = [
  operation: BatchOperation,
  fd: number,
  from: Uint8Array | null,
  token: Uint8Array | null,
  keys: Uint8Array,
  values: Uint8Array | null,
  count: number,
  flags: number,
]

/** `count`: entries done, also where the result is an error. */
export interface NativeBatchAnswer {
  readonly result: number
  readonly count: number
}

export interface Native {
  openObject(path: string): { result: number; log: string; object?: NativeObject }
  possibleCpus(): number

  mapCreate(
    type: number,
    name: string,
    key: number,
    value: number,
    entries: number,
    flags: number,
    innerFd: number,
  ): number
  /** A descriptor of a map by its id (needs CAP_SYS_ADMIN). */
  mapById(id: number): number
  /** A descriptor of a program by its id (needs CAP_SYS_ADMIN). */
  programById(id: number): number
  mapLookup(fd: number, key: Uint8Array, value: Uint8Array): number
  mapTake(fd: number, key: Uint8Array, value: Uint8Array): number
  mapUpdate(fd: number, key: Uint8Array, value: Uint8Array, flags: number): number
  mapDelete(fd: number, key: Uint8Array): number
  mapNextKey(fd: number, key: Uint8Array | null, next: Uint8Array): number
  mapBatch(...request: NativeBatch): NativeBatchAnswer
  mapBatchAsync(...request: NativeBatch): Promise<NativeBatchAnswer>
  /** A descriptor of a program by its id (needs CAP_SYS_ADMIN). */
  programById(id: number): number
  /** A descriptor; closing it ends the counting unless somebody else wants it. */
  enableStats(): number
  objPin(fd: number, path: string): number
  objGet(path: string): number
  linkCreate(program: number, target: number, attachType: number, flags: number): number
  linkInterface(program: number, netns: number, name: string, attachType: number, flags: number): number
  /** `mapFd` 0 for iterators that need no map. */
  linkIterator(program: number, mapFd: number): number
  readIterator(link: number, netns: number, maxBytes: number): Uint8Array | number
  readIteratorAsync(link: number, netns: number, maxBytes: number): Promise<Uint8Array | number>
  linkUpdate(link: number, program: number): number
  linkDetach(link: number): number
  info(fd: number, kind: 'map' | 'program' | 'link'): NativeInfo | number
  testRun(
    program: number,
    dataIn: Uint8Array | null,
    dataOut: Uint8Array | null,
    ctxIn: Uint8Array | null,
    ctxOut: Uint8Array | null,
    repeat: number,
  ): { result: number; returned: number; nanoseconds: number; dataSize: number; ctxSize: number }
  probeProgram(type: number): number
  probeMap(type: number): number
  probeHelper(programType: number, helper: number): number
  probeIterator(what: string): number
  loadBare(type: number, attachType: number): number

  ringOpen(
    fd: number,
    maxRecords: number,
    maxBytes: number,
    onBatch: (bytes: Uint8Array, ranges: Uint32Array) => void,
  ): NativeRing | number

  open(path: string, flags: number): number
  close(fd: number): number
  dup(fd: number): number
  isBpffs(path: string): number
  mountBpffs(path: string): number
  cgroupId(path: string): bigint | number
  netnsCookie(netns: number): bigint | number
  interfaces(netns: number): NativeInterface[] | number
  socketIn(options: NativeSocketOptions): number | { errno: number; syscall: string }
  socketCookie(fd: number): bigint | number
  socketListens(fd: number): number
  socketName(fd: number, peer: boolean): Uint8Array | number
  socketNetns(fd: number): bigint | number
  sealedMemory(name: string, bytes: Uint8Array): number
  isSealed(fd: number): number
  packetSocket(path: string): number
  socketPair(): [number, number] | number
  sendFds(socket: number, bytes: Uint8Array, fds: readonly number[]): number
  recvFds(
    socket: number,
    maxBytes: number,
    maxFds: number,
  ): { bytes: Uint8Array; fds: number[]; truncated: boolean } | number
}

let loaded: Native | undefined

/** Where the build puts the addon, as seen from this file. */
export const addonPath = new URL('../../build/Release/ambit_bpf.node', import.meta.url).pathname

/** The addon, loaded at first use. Throws BpfError NOT_LINUX or NOT_BUILT with the way out. */
export function native(): Native {
  if (loaded !== undefined) return loaded
  if (process.platform !== 'linux') {
    throw new BpfError('NOT_LINUX', 0, 'dlopen', `eBPF needs Linux, this is ${process.platform}`)
  }
  if (!existsSync(addonPath)) {
    throw new BpfError('NOT_BUILT', 0, 'dlopen', `The addon ${addonPath} is not built`, 'Run native/build.sh')
  }
  try {
    loaded = createRequire(import.meta.url)(addonPath) as Native
  } catch (error) {
    throw new BpfError(
      'NOT_BUILT',
      0,
      'dlopen',
      `The addon ${addonPath} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`,
      'Run native/build.sh; at run time it needs libbpf.so.1 and libelf.so.1 (Debian: libbpf1, libelf1)',
    )
  }
  return loaded
}
