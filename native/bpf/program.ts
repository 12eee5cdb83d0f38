// Loaded programs and their links: attach, pin, adopt by path, replace, run once for a test. Must not live here: loading
// (object.ts) and which program belongs where.
import { native, type NativeInfo } from './addon.ts'
import { BpfError, check, failure } from './errors.ts'
import { attachTypes, programTypes, type ProgramType } from './kinds.ts'
import { BPF_F_BEFORE, BPF_F_PREORDER, hasFeature } from './features.ts'
import type { MapHandle, Owner } from './keyed.ts'
import { closeFd, withNetns } from './sockets.ts'

/** errno of an interrupted call, and how often one is begun anew. */
const EINTR = 4
const MAX_INTERRUPTIONS = 20

/** What an iterator may write unless told otherwise: some hundred thousand sockets. */
const DEFAULT_ITERATOR_BYTES = 16 << 20

/**
 * Where a program runs among those of the same cgroup. (A child cgroup's programs always run before its parent's.)
 * `first`: by BPF_F_BEFORE (kernel 6.17), else BPF_F_PREORDER (6.15), else at the end as `last` does: see Link.order.
 */
export type CgroupOrder = 'first' | 'last'

export interface AttachInterfaceOptions {
  /** Packets that come in from the interface, or that go out by it. */
  readonly direction: 'ingress' | 'egress'
  /** Before or after the programs that are there. Default last. */
  readonly order?: 'first' | 'last'
}

export interface IterateOptions {
  /** The map whose entries SEC("iter/bpf_map_elem") and SEC("iter/bpf_sk_storage_map") walk. */
  readonly map?: MapHandle
  /** Whose sockets SEC("iter/tcp") and its like walk. Default: this process's. */
  readonly netns?: string | number
  /** Fails with E2BIG past so many bytes. Default 16 MiB. */
  readonly maxBytes?: number
}

export interface TestRunOptions {
  /** Packet bytes, for program types that see packets. */
  readonly data?: Uint8Array
  /** The context struct: required for sk_lookup (struct bpf_sk_lookup) and syscall programs (any struct, in and out). */
  readonly context?: Uint8Array
  /** Runs so often; `nanoseconds` is the mean. Default 1. */
  readonly repeat?: number
  /** Room for the packet afterwards. Default: the size of `data`, at least 256. */
  readonly dataOutSize?: number
}

export interface TestRunResult {
  /** What the program returned. */
  readonly returned: number
  /** Mean time of one run. */
  readonly nanoseconds: number
  /** The packet afterwards. */
  readonly data: Uint8Array
  /** The context afterwards (for a syscall program: its struct, as the program left it). */
  readonly context: Uint8Array
}

/** What the kernel counted of a program, since it was loaded. */
export interface ProgramStatistics {
  readonly runs: bigint
  /** Time of all runs, with some 20 ns each for taking it. */
  readonly nanoseconds: bigint
}

/** A program in the kernel. */
export class Program {
  readonly name: string
  readonly type: ProgramType
  /** enum bpf_attach_type */
  readonly attachType: number
  #fd: number
  readonly #owner: Owner | undefined

  constructor(fd: number, name: string, type: ProgramType, attachType: number, owner?: Owner) {
    this.#fd = fd
    this.name = name
    this.type = type
    this.attachType = attachType
    this.#owner = owner
  }

  /** The descriptor; still owned by this handle or its module. */
  get fd(): number {
    if (this.#fd < 0 || this.#owner?.closed === true) {
      throw new BpfError('CLOSED', 0, '', `Program ${this.name} is closed`)
    }
    return this.#fd
  }

  /** The kernel's hash of the instructions: equal tags = equal code. */
  get tag(): string {
    return this.#info().tag
  }

  /** The kernel's number of the program, for `openProgramById`. */
  get id(): number {
    return this.#info().id
  }

  /** When it was loaded, in nanoseconds since boot. */
  get loadedAt(): bigint {
    return this.#info().loadedAt
  }

  /** Instructions the verifier went through to accept the program, a measure of its work (kernel 5.16, before it 0). */
  get verifiedInstructions(): number {
    return this.#info().instructions
  }

  /** How often the program ran and how long that took, over all its attachments and processors, while `enableStats` held. */
  get statistics(): ProgramStatistics {
    const { runs, runNanoseconds } = this.#info()
    return { runs, nanoseconds: runNanoseconds }
  }

  #info(): NativeInfo {
    const info = native().info(this.fd, 'program')
    if (typeof info === 'number') throw failure(-info, 'BPF_OBJ_GET_INFO_BY_FD', `Asking about program ${this.name}`)
    return info
  }

  /** Links to a cgroup of the v2 hierarchy, by path or by a descriptor of its directory. */
  attachCgroup(cgroup: string | number, options: { order?: CgroupOrder } = {}): Link {
    const what = `Attaching program ${this.name} to cgroup ${cgroup}`
    const target = typeof cgroup === 'number' ? cgroup : check(native().open(cgroup, 0), 'open', what)
    try {
      if (options.order === 'first') {
        for (const order of ['before', 'preorder'] as const) {
          if (!hasFeature(`link:cgroup_${order}`)) continue
          const flag = order === 'before' ? BPF_F_BEFORE : BPF_F_PREORDER
          const fd = check(native().linkCreate(this.fd, target, this.attachType, flag), 'BPF_LINK_CREATE', what)
          return new Link(fd, `${this.name}@${cgroup}`, order)
        }
      }
      const fd = check(native().linkCreate(this.fd, target, this.attachType, 0), 'BPF_LINK_CREATE', what)
      return new Link(fd, `${this.name}@${cgroup}`, 'append')
    } finally {
      if (typeof cgroup === 'string') closeFd(target)
    }
  }

  /** Links to a network namespace, by path (/proc/1/ns/net, /run/netns/x) or descriptor: sk_lookup, flow dissector. */
  attachNetns(netns: string | number): Link {
    const what = `Attaching program ${this.name} to network namespace ${netns}`
    const fd = withNetns(netns, (target) => native().linkCreate(this.fd, target, this.attachType, 0))
    return new Link(check(fd, 'BPF_LINK_CREATE', what), `${this.name}@${netns}`, 'append')
  }

  /**
   * Links a SEC("tc") program to an interface of a network namespace (tcx, kernel 6.6). No qdisc is needed, and programs of
   * others on the same interface stay. Throws BpfError NO_FEATURE on a kernel without tcx, ENODEV where no such interface is.
   * The link ends with the interface.
   */
  attachInterface(netns: string | number, name: string, options: AttachInterfaceOptions): Link {
    const what = `Attaching program ${this.name} to the ${options.direction} of ${name} in network namespace ${netns}`
    if (!hasFeature('link:tcx')) {
      const hint = 'Use a kernel from 6.6 on with CONFIG_NET_XGRESS'
      throw new BpfError('NO_FEATURE', 0, 'BPF_LINK_CREATE', `${what} needs tcx, which this kernel lacks`, hint)
    }
    const [first, type] = [options.order === 'first', attachTypes[`tcx_${options.direction}`]]
    const fd = withNetns(netns, (target) =>
      native().linkInterface(this.fd, target, name, type, first ? BPF_F_BEFORE : 0),
    )
    return new Link(check(fd, 'BPF_LINK_CREATE', what), `${this.name}@${name}`, first ? 'before' : 'append')
  }

  /**
   * Runs a SEC("iter/…") program over all there is of its kind, once, and gives the bytes it wrote (bpf_seq_write,
   * bpf_seq_printf). This holds the calling thread while it lasts: some 100 ns an element.
   */
  iterate(options: IterateOptions = {}): Uint8Array {
    const link = this.#linkIterator(options)
    try {
      return this.#iterated(readIn(options, (netns, maxBytes) => native().readIterator(link, netns, maxBytes)))
    } finally {
      closeFd(link)
    }
  }

  /** The same on a worker thread. */
  async iterateAsync(options: IterateOptions = {}): Promise<Uint8Array> {
    const link = this.#linkIterator(options)
    try {
      return this.#iterated(
        await readIn(options, (netns, maxBytes) => native().readIteratorAsync(link, netns, maxBytes)),
      )
    } finally {
      closeFd(link)
    }
  }

  #linkIterator({ map }: IterateOptions): number {
    return check(native().linkIterator(this.fd, map?.fd ?? 0), 'BPF_LINK_CREATE', `Iterating by program ${this.name}`)
  }

  #iterated(out: Uint8Array | number): Uint8Array {
    if (typeof out !== 'number') return out
    throw failure(-out, 'BPF_ITER_CREATE', `Iterating by program ${this.name}`)
  }

  /** Runs the program once (or `repeat` times) on the given input without attaching it: BPF_PROG_TEST_RUN. */
  testRun(options: TestRunOptions = {}): TestRunResult {
    const packet = options.data ?? null
    const dataOut = packet === null ? null : new Uint8Array(options.dataOutSize ?? Math.max(packet.length, 256))
    const context = options.context ?? null
    // A syscall program's struct is written in place; the kernel refuses a separate room for it (EINVAL).
    const separate = context !== null && this.type !== 'syscall' && this.type !== 'sk_lookup'
    const contextIn = context === null ? null : Uint8Array.from(context)
    const contextOut = separate ? new Uint8Array(context.length) : null
    const repeat = options.repeat ?? (this.type === 'syscall' ? 0 : 1)
    let run = native().testRun(this.fd, packet, dataOut, contextIn, contextOut, repeat)
    // The kernel breaks a repeated run off when a signal is pending, as V8's own are at any time: then it begins anew.
    for (let again = 0; run.result === -EINTR && again < MAX_INTERRUPTIONS; again++) {
      run = native().testRun(this.fd, packet, dataOut, contextIn, contextOut, repeat)
    }
    check(run.result, 'BPF_PROG_TEST_RUN', `Running program ${this.name}`)
    return {
      returned: run.returned,
      nanoseconds: run.nanoseconds,
      data: dataOut?.subarray(0, run.dataSize) ?? new Uint8Array(),
      context: contextOut?.subarray(0, run.ctxSize) ?? contextIn ?? new Uint8Array(),
    }
  }

  /** Makes the program outlive the process, at a path on a bpffs whose directory exists. */
  pin(path: string): void {
    check(native().objPin(this.fd, path), 'BPF_OBJ_PIN', `Pinning program ${this.name} at ${path}`)
  }

  /** Closes a program that was opened by its pin; one that belongs to a module stays with it. */
  close(): void {
    if (this.#fd >= 0 && this.#owner === undefined) native().close(this.#fd)
    this.#fd = -1
  }
}

/** The namespace is entered, or not, by the time `read` returns. */
function readIn<T>({ netns, maxBytes }: IterateOptions, read: (netns: number, maxBytes: number) => T): T {
  return withNetns(netns ?? '/proc/self/ns/net', (fd) => read(fd, maxBytes ?? DEFAULT_ITERATOR_BYTES))
}

/** Opens a program by its pin. */
export function openPinnedProgram(path: string): Program {
  return opened(check(native().objGet(path), 'BPF_OBJ_GET', `Opening the pinned program ${path}`), path)
}

/**
 * Opens a program of any process by the kernel's number of it, as `Link.info().programId` names it. Needs CAP_SYS_ADMIN;
 * ENOENT: no such program any more. It stays loaded while the handle is open.
 */
export function openProgramById(id: number): Program {
  const what = `program ${id}`
  return opened(check(native().programById(id), 'BPF_PROG_GET_FD_BY_ID', `Opening ${what}`), what)
}

function opened(fd: number, what: string): Program {
  const info = native().info(fd, 'program')
  if (typeof info === 'number') {
    closeFd(fd)
    throw failure(-info, 'BPF_OBJ_GET_INFO_BY_FD', `Asking about ${what}`)
  }
  const type = programTypes[info.type] ?? 'unspec'
  // The kernel does not tell the expected attach type; sk_lookup and sock_ops have only one.
  const attachType =
    type === 'sk_lookup' ? attachTypes.sk_lookup : type === 'sock_ops' ? attachTypes.cgroup_sock_ops : 0
  return new Program(fd, info.name, type, attachType)
}

/** What a link joins. */
export interface LinkInfo {
  readonly id: number
  readonly programId: number
  /** enum bpf_attach_type */
  readonly attachType: number
  /** Cgroup id, inode of the network namespace, or index of the interface; 0n once the target is gone. */
  readonly target: bigint
}

/**
 * An attachment. It ends with its last descriptor and pin: closing an unpinned link detaches, closing a pinned one does
 * not. Links are never closed by garbage collection.
 */
export class Link {
  readonly name: string
  /** How the place among a cgroup's programs was got; `adopted` for links opened by path. */
  readonly order: 'before' | 'preorder' | 'append' | 'adopted'
  #fd: number

  constructor(fd: number, name: string, order: Link['order']) {
    this.#fd = fd
    this.name = name
    this.order = order
  }

  /** The descriptor; still owned by the link. */
  get fd(): number {
    if (this.#fd < 0) throw new BpfError('CLOSED', 0, '', `Link ${this.name} is closed`)
    return this.#fd
  }

  /** Makes the attachment outlive the process, at a path on a bpffs whose directory exists. */
  pin(path: string): void {
    check(native().objPin(this.fd, path), 'BPF_OBJ_PIN', `Pinning link ${this.name} at ${path}`)
  }

  /** Replaces the program without a gap: each event sees the old or the new one. ENOLINK: the target is gone. */
  update(program: Program): void {
    const what = `Replacing the program of link ${this.name} by ${program.name}`
    check(native().linkUpdate(this.fd, program.fd), 'BPF_LINK_UPDATE', what)
  }

  info(): LinkInfo {
    const info = native().info(this.fd, 'link')
    if (typeof info === 'number') throw failure(-info, 'BPF_OBJ_GET_INFO_BY_FD', `Asking about link ${this.name}`)
    return { id: info.id, programId: info.programId, attachType: info.attachType, target: info.target }
  }

  /** Detaches now, whatever pins there are; those become defunct and can only be removed. */
  detach(): void {
    check(native().linkDetach(this.fd), 'BPF_LINK_DETACH', `Detaching link ${this.name}`)
  }

  /** Gives up this handle. Idempotent. */
  close(): void {
    if (this.#fd >= 0) closeFd(this.#fd)
    this.#fd = -1
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** The wish to have runs of programs counted; it ends with the handle or the process. */
export interface StatisticsHandle extends Disposable {
  /** Idempotent. */
  close(): void
}

/**
 * Makes the kernel count runs and times of all its programs (BPF_ENABLE_STATS, kernel 5.8) for as long as the handle is open, or the
 * process lives: no setting stays behind, unlike with the sysctl kernel.bpf_stats_enabled. Costs every run of every program some 20 ns.
 * Needs CAP_SYS_ADMIN.
 */
export function enableStats(): StatisticsHandle {
  let fd = check(native().enableStats(), 'BPF_ENABLE_STATS', 'Enabling the statistics of programs')
  const close = (): void => {
    if (fd >= 0) closeFd(fd)
    fd = -1
  }
  return { close, [Symbol.dispose]: close }
}

/** Adopts a link by its pin, as a restarted process does. */
export function openPinnedLink(path: string): Link {
  return new Link(check(native().objGet(path), 'BPF_OBJ_GET', `Opening the pinned link ${path}`), path, 'adopted')
}
