// Sockets and descriptors across network namespaces: made inside another namespace, named, passed over unix sockets;
// netns cookies, interfaces and cgroup ids. Every descriptor is close-on-exec. Must not live here: what sockets are used for.
import { native } from './addon.ts'
import { check, failure } from './errors.ts'
import { formatAddress, packAddress, parseSockaddr, type SocketAddress } from './sockaddr.ts'

export type { SocketAddress } from './sockaddr.ts'

export interface SocketInOptions {
  /** 4 or 6. */
  readonly family: 4 | 6
  /** Default stream. */
  readonly type?: 'stream' | 'dgram'
  /** Local address to bind; with `listen` the address listened on. Port 0 (default) = any free one. */
  readonly bind?: { readonly address: string; readonly port?: number }
  /** Listen with this backlog. Without it the socket is left unconnected. */
  readonly listen?: { readonly backlog?: number }
  /** IPV6_V6ONLY; default: the system's (`net.ipv6.bindv6only`). */
  readonly ipv6Only?: boolean
  readonly reusePort?: boolean
  /** SO_REUSEADDR; default true where `listen` is given. */
  readonly reuseAddress?: boolean
  /** IP_TRANSPARENT / IPV6_TRANSPARENT: bind to addresses that are not local. */
  readonly transparent?: boolean
  /** SO_MARK; 0 = none. */
  readonly mark?: number
  /** Default true. */
  readonly nonBlocking?: boolean
}

const O_RDONLY = 0

/**
 * Makes a socket inside a network namespace (path or descriptor) and returns its descriptor: listening, or not yet
 * connected. The calling thread's namespace never changes: a thread of the addon goes there and comes back.
 */
export function socketIn(netns: string | number, options: SocketInOptions): number {
  const result = withNetns(netns, (fd) =>
    native().socketIn({
      netns: fd,
      family: options.family,
      type: options.type === 'dgram' ? 2 : 1,
      bind: options.bind === undefined ? new Uint8Array() : packAddress(options.bind.address, options.family),
      port: options.bind?.port ?? 0,
      backlog: options.listen === undefined ? -1 : (options.listen.backlog ?? 4096),
      ipv6Only: options.ipv6Only === undefined ? -1 : options.ipv6Only ? 1 : 0,
      reusePort: options.reusePort ?? false,
      reuseAddress: options.reuseAddress ?? options.listen !== undefined,
      transparent: options.transparent ?? false,
      nonBlocking: options.nonBlocking ?? true,
      mark: options.mark ?? 0,
    }),
  )
  const where = options.bind === undefined ? '' : ` at ${formatAddress(options.bind.address, options.bind.port ?? 0)}`
  if (typeof result === 'number') return result
  throw failure(result.errno, result.syscall, `Making a socket in network namespace ${netns}${where}`)
}

/** Opens a network namespace by path; the descriptor keeps it alive. Close it with closeFd. */
export function openNetns(path: string): number {
  return check(native().open(path, O_RDONLY), 'open', `Opening network namespace ${path}`)
}

/** Runs `use` with a descriptor of a namespace given by path or descriptor. */
export function withNetns<T>(netns: string | number, use: (fd: number) => T): T {
  if (typeof netns === 'number') return use(netns)
  const fd = openNetns(netns)
  try {
    return use(fd)
  } finally {
    closeFd(fd)
  }
}

/** The cookie by which BPF programs know a network namespace (bpf_get_netns_cookie): unique until reboot. Kernel 5.14. */
export function netnsCookie(netns: string | number): bigint {
  const cookie = withNetns(netns, (fd) => native().netnsCookie(fd))
  if (typeof cookie === 'number') throw failure(-cookie, 'SO_NETNS_COOKIE', `Asking for the cookie of ${netns}`)
  return cookie
}

/** A network interface. */
export interface NetworkInterface {
  /** Unique in its namespace. */
  readonly index: number
  readonly name: string
  /** What its frames begin with: 1 (ARPHRD_ETHER) an Ethernet header; others see linux/if_arp.h. */
  readonly type: number
  readonly loopback: boolean
}

/** The interfaces of a network namespace (path or descriptor), up or down. */
export function interfacesIn(netns: string | number): readonly NetworkInterface[] {
  const found = withNetns(netns, (fd) => native().interfaces(fd))
  if (typeof found === 'number') throw failure(-found, 'if_nameindex', `Listing the interfaces of ${netns}`)
  return found
}

/** The id by which BPF programs know a cgroup (bpf_get_current_cgroup_id), of a directory of the v2 hierarchy. */
export function cgroupId(path: string): bigint {
  const id = native().cgroupId(path)
  if (typeof id === 'number') throw failure(-id, 'name_to_handle_at', `Asking for the id of cgroup ${path}`)
  return id
}

/** Closes a descriptor. Throws for one that is not open (EBADF): that is a bug worth hearing of. */
export function closeFd(fd: number): void {
  check(native().close(fd), 'close', `Closing descriptor ${fd}`)
}

/** A duplicate, close-on-exec. */
export function dupFd(fd: number): number {
  return check(native().dup(fd), 'fcntl', `Duplicating descriptor ${fd}`)
}

/** SO_COOKIE: unique until reboot, the same that bpf_get_socket_cookie gives. */
export function socketCookie(fd: number): bigint {
  const cookie = native().socketCookie(fd)
  if (typeof cookie === 'number') throw failure(-cookie, 'SO_COOKIE', `Asking for the cookie of socket ${fd}`)
  return cookie
}

/** SO_ACCEPTCONN: whether the socket is listening, as it stops when someone shuts it down or destroys it. */
export function socketListens(fd: number): boolean {
  return check(native().socketListens(fd), 'SO_ACCEPTCONN', `Asking whether socket ${fd} listens`) === 1
}

/** The cookie of the namespace that a socket belongs to, as netnsCookie gives it. */
export function socketNetns(fd: number): bigint {
  const cookie = native().socketNetns(fd)
  if (typeof cookie === 'number') throw failure(-cookie, 'SO_NETNS_COOKIE', `Asking for the namespace of socket ${fd}`)
  return cookie
}

/** The socket's own address (getsockname). v4-mapped addresses are given as IPv4, with `mapped` set. */
export function socketName(fd: number): SocketAddress {
  return nameOf(fd, false)
}

/** The peer's address (getpeername); ENOTCONN if there is none. */
export function peerName(fd: number): SocketAddress {
  return nameOf(fd, true)
}

function nameOf(fd: number, peer: boolean): SocketAddress {
  const raw = native().socketName(fd, peer)
  const call = peer ? 'getpeername' : 'getsockname'
  if (typeof raw === 'number') throw failure(-raw, call, `Asking for the address of socket ${fd}`)
  return parseSockaddr(raw)
}

/** Two connected, non-blocking unix stream sockets. */
export function socketPair(): [number, number] {
  const pair = native().socketPair()
  if (typeof pair === 'number') throw failure(-pair, 'socketpair', 'Making a pair of sockets')
  return pair
}

/** Connects to a unix socket of type SOCK_SEQPACKET; non-blocking. Never waits: EAGAIN if the listener's queue is full. */
export function packetSocket(path: string): number {
  return check(native().packetSocket(path), 'connect', `Connecting to ${path}`)
}

/**
 * Sends bytes with descriptors (SCM_RIGHTS) over a connected unix socket. At least one byte and at most 253 descriptors.
 * Returns the bytes taken; the descriptors go with the first. The sender keeps its own copies. EAGAIN if it would block.
 */
export function sendFds(socket: number, bytes: Uint8Array, fds: readonly number[]): number {
  return check(native().sendFds(socket, bytes, fds), 'sendmsg', `Sending ${fds.length} descriptors over ${socket}`)
}

export interface ReceivedFds {
  /** Empty at the end of the stream. */
  readonly bytes: Uint8Array
  /** The receiver's own descriptors, close-on-exec. */
  readonly fds: readonly number[]
  /** More descriptors were sent than asked for; the kernel closed the rest. */
  readonly truncated: boolean
}

/** Receives bytes and descriptors from a unix socket; undefined if nothing is there yet (EAGAIN). */
export function recvFds(socket: number, maxBytes = 65_536, maxFds = 253): ReceivedFds | undefined {
  const got = native().recvFds(socket, maxBytes, maxFds)
  if (typeof got !== 'number') return got
  if (got === -11) return undefined
  throw failure(-got, 'recvmsg', `Receiving descriptors from ${socket}`)
}
