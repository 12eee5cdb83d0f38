// One pod in the kernel: its listeners, its copy of the sk_lookup program, its entries in the maps; and what of that an
// earlier agent left pinned. Must not live here: which pods are enrolled (../enroll), the node's programs (programs.ts).
import { renameSync, rmSync } from 'node:fs'
import { BpfError, closeFd, openPinnedLink, socketIn, socketName, type Link } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'
import type { ListenerKind, PodHandle, PodListeners } from './contract.ts'
import { guardInterfaces, purgeGuards, releaseInterfaces } from './guards.ts'
import { hold, type HeldLink } from './held.ts'
import { kernelAddress } from './notes.ts'
import { loadLookup, podPins, type NodePrograms } from './programs.ts'

/** enum pod_state */
const states = { passing: 1, captured: 2 } as const
/** enum listener_kind: index in `listener_ports`. */
export const listenerKinds = ['outbound', 'hbone', 'plaintext'] as const

// Beyond the usual ephemeral range (ip_local_port_range ends at 60999) and beyond what programs listen on: the ports are
// on loopback and mean nothing, but must not be in the way of an app that wants one of its own.
const FIRST_PORT = 61_000
const PORTS = 65_536 - FIRST_PORT
const BIND_ATTEMPTS = 64
/** Connections that wait to be accepted, per listener; the kernel caps it by net.core.somaxconn. */
const BACKLOG = 4096
const UID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/

/** The pinned link of a pod is named `<cookie>-<uid>` (bpffs allows no dots): all a new agent must know. */
interface PinName {
  readonly cookie: bigint
  readonly uid: string
}

export function parsePin(name: string): PinName | undefined {
  const match = /^(\d+)-(.+)$/.exec(name)
  return match ? { cookie: BigInt(match[1] as string), uid: match[2] as string } : undefined
}

/** Throws REDIRECT_BAD_UID unless the uid can be a file name of a pin. */
export function checkUid(uid: string): void {
  if (UID.test(uid)) return
  throw new AmbitError('REDIRECT_BAD_UID', `'${uid}' cannot be the uid of a captured pod.`, {
    hint: 'Use letters, digits, - and _, at most 128.',
  })
}

/** An enrolled pod as this agent put it into the kernel: what its checkup holds the kernel to. */
export interface Enrolled {
  readonly uid: string
  readonly cookie: bigint
  /** Keeps the namespace at hand for sockets made in it. */
  readonly netns: number
  addresses: readonly string[]
  listeners: PodListeners
  refusePlaintext: boolean
  /** Its policy table has refused UDP to some port. */
  refusesDatagrams?: boolean
  held: HeldLink
}

/** Makes the three listeners inside the namespace. They are dual-stack and answer on loopback only. */
export function makeListeners(netns: number): PodListeners {
  const made: number[] = []
  try {
    for (let i = 0; i < listenerKinds.length; i++) made.push(makeListener(netns))
  } catch (error) {
    made.forEach(closeFd)
    throw error
  }
  return { outbound: made[0] as number, hbone: made[1] as number, plaintext: made[2] as number }
}

export function makeListener(netns: number): number {
  for (let attempt = 1; ; attempt++) {
    const port = FIRST_PORT + Math.floor(Math.random() * PORTS)
    const listen = { backlog: BACKLOG }
    try {
      // A v4-mapped address on an IPv6 socket: bpf_sk_assign gives it connections of both families, and no other way
      // leads to it from outside the pod, even if sk_lookup were gone.
      return socketIn(netns, {
        family: 6,
        ipv6Only: false,
        reuseAddress: false,
        bind: { address: '127.0.0.1', port },
        listen,
      })
    } catch (error) {
      if (!(error instanceof BpfError)) throw error
      // A kernel without IPv6 has no IPv6 connections to miss.
      if (error.code === 'EAFNOSUPPORT') {
        return socketIn(netns, { family: 4, reuseAddress: false, bind: { address: '127.0.0.1', port }, listen })
      }
      if (error.code !== 'EADDRINUSE' || attempt === BIND_ATTEMPTS) throw error
    }
  }
}

/** The pod's entries and its link. Order matters: nothing is refused for being half enrolled, nothing passes once enrolled. */
export async function install(
  programs: NodePrograms,
  pinRoot: string,
  pod: PodHandle,
  cookie: bigint,
  netns: number,
  listeners: PodListeners,
  guarded: boolean,
): Promise<Enrolled> {
  const { ambit_pods } = programs.maps
  const before = ambit_pods.get(cookie)
  const { uid, addresses } = pod
  // An adopted pod keeps being captured meanwhile, and refuses plaintext if it did.
  const refusePlaintext = before?.refuse_plaintext === 1
  for (const kind of listenerKinds) setListener(programs, cookie, kind, listeners[kind])
  setAddresses(programs, cookie, addresses)
  const entry = { ...entryOf(listeners, refusePlaintext), flags: before?.flags ?? 0 }
  ambit_pods.set(cookie, { ...entry, state: before?.state ?? states.passing })
  const held = await attachLookup(pinRoot, uid, cookie, netns)
  try {
    if (guarded) await guardInterfaces(pinRoot, cookie, netns, { renew: true })
  } catch (error) {
    held.link.close()
    throw error
  }
  ambit_pods.set(cookie, entry)
  return { uid, cookie, netns, addresses, listeners, refusePlaintext, held }
}

/** struct pod of a captured pod about which the tables (tables.ts) say nothing yet. */
export function entryOf(listeners: PodListeners, refusePlaintext: boolean) {
  return {
    listener_ports: listenerKinds.map((kind) => socketName(listeners[kind]).port),
    state: states.captured as number,
    refuse_plaintext: refusePlaintext ? 1 : 0,
    flags: 0,
  }
}

export function setListener(programs: NodePrograms, cookie: bigint, kind: ListenerKind, fd: number): void {
  programs.maps.ambit_listeners.set({ cookie, kind: listenerKinds.indexOf(kind) }, fd)
}

/** Adopts the namespace's pinned link if there is one and gives it this agent's program, else makes and pins one. */
async function attachLookup(pinRoot: string, uid: string, cookie: bigint, netns: number): Promise<HeldLink> {
  const module = await loadLookup(pinRoot, cookie)
  const program = module.programs.ambit_lookup
  const pin = `${pinRoot}/pods/${cookie}-${uid}`
  try {
    const old = podPins(pinRoot).find((name) => parsePin(name)?.cookie === cookie)
    if (old !== undefined) {
      const path = `${pinRoot}/pods/${old}`
      const link = openPinnedLink(path)
      try {
        link.update(program)
        // The namespace was known under another uid: the name follows.
        if (path !== pin) renameSync(path, pin)
        return hold(link, program, pin)
      } catch (error) {
        link.close()
        if (!(error instanceof BpfError && error.code === 'ENOLINK')) throw error
        rmSync(path, { force: true })
      }
    }
    const link = program.attachNetns(netns)
    try {
      link.pin(pin)
      return hold(link, program, pin)
    } catch (error) {
      link.close()
      throw error
    }
  } finally {
    // The link holds the program.
    module.close()
  }
}

/** Takes a pod out of the kernel: what is not yet captured passes, the program goes, then the entries. Idempotent. */
export function uninstall(programs: NodePrograms, pinRoot: string, cookie: bigint, held: Link | undefined): void {
  const { ambit_pods, ambit_listeners } = programs.maps
  const value = ambit_pods.get(cookie)
  if (value) ambit_pods.set(cookie, { ...value, state: states.passing })
  releaseInterfaces(pinRoot, cookie)
  for (const name of podPins(pinRoot)) {
    if (parsePin(name)?.cookie !== cookie) continue
    const path = `${pinRoot}/pods/${name}`
    const link = held ?? openPinnedLink(path)
    try {
      link.detach()
    } catch (error) {
      // The namespace is gone, and the attachment with it.
      if (!(error instanceof BpfError && error.code === 'ENOLINK')) throw error
    } finally {
      link.close()
    }
    rmSync(path, { force: true })
  }
  listenerKinds.forEach((_, index) => ambit_listeners.delete({ cookie, kind: index }))
  setAddresses(programs, cookie, [])
  ambit_pods.delete(cookie)
  // Last: while it is there nobody is let in that should not be.
  programs.maps.ambit_policies.delete(cookie)
}

/** Takes out what earlier agents left of pods whose namespace no longer exists. */
export function purge(programs: NodePrograms, pinRoot: string): void {
  for (const name of podPins(pinRoot)) {
    const pin = parsePin(name)
    if (!pin) continue
    const link = openPinnedLink(`${pinRoot}/pods/${name}`)
    if (link.info().target === 0n) uninstall(programs, pinRoot, pin.cookie, link)
    else link.close()
  }
  purgeGuards(pinRoot, new Set(podPins(pinRoot).flatMap((name) => parsePin(name)?.cookie ?? [])))
}

/** Whether plaintext is refused by the kernel or handed to the agent. */
export function setRefusePlaintext(programs: NodePrograms, pod: Enrolled, refuse: boolean): void {
  const value = programs.maps.ambit_pods.get(pod.cookie)
  if (value) programs.maps.ambit_pods.set(pod.cookie, { ...value, refuse_plaintext: refuse ? 1 : 0 })
  pod.refusePlaintext = refuse
}

/** Makes the pod's own addresses exactly these. */
export function setAddresses(programs: NodePrograms, cookie: bigint, addresses: readonly string[]): void {
  const { ambit_addresses } = programs.maps
  const wanted = addresses.map(kernelAddress)
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const keep = new Set(wanted.map(({ bytes }) => hex(bytes)))
  for (const address of wanted) ambit_addresses.set({ cookie, address }, 1)
  for (const key of ambit_addresses.keys()) {
    if (key.cookie === cookie && !keep.has(hex(key.address.bytes))) ambit_addresses.delete(key)
  }
}
