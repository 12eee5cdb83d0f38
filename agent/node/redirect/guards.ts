// The guards of a pod's interfaces: copies of bpf/guard.bpf.c at the exit of each but loopback, and at the entry where UDP is
// refused; pinned as `<cookie>-<index>` and `<cookie>-<index>-ingress`, so that they outlive the agent and its successor finds
// them. Must not live here: what they let pass (bpf/lib/decide_guard.h, decide_datagram.h).
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { BpfError, interfacesIn, openPinnedLink, type Link, type NetworkInterface } from '../../../native/bpf/index.ts'
import type { GuardReport } from './contract.ts'
import { loadGuard, type GuardModule } from './programs.ts'

/** linux/if_arp.h: frames begin with an Ethernet header. */
const ARPHRD_ETHER = 1

/** Where a guard stands, and the program it is. */
const directions = { egress: 'ambit_guard', ingress: 'ambit_guard_in' } as const
type Direction = keyof typeof directions

interface GuardPin {
  readonly name: string
  readonly cookie: bigint
  readonly index: number
}

/** What is pinned of all pods, or of one. */
function pins(pinRoot: string, cookie?: bigint): GuardPin[] {
  const folder = `${pinRoot}/guards`
  if (!existsSync(folder)) return []
  return readdirSync(folder).flatMap((name) => {
    const match = /^(\d+)-(\d+)(?:-ingress)?$/.exec(name)
    if (!match) return []
    const pin = { name, cookie: BigInt(match[1] as string), index: Number(match[2]) }
    return cookie === undefined || pin.cookie === cookie ? [pin] : []
  })
}

/**
 * Guards every interface of the namespace but loopback, up or down. `datagrams`: at the entry too, for UDP to groups; where a
 * guard stands there once, it stays, and later interfaces get one as well. `renew`: those that are guarded already get this
 * agent's program in place of an earlier one's; else they are only looked at. What is pinned of interfaces that are gone is
 * removed. Throws BpfError.
 */
export async function guardInterfaces(
  pinRoot: string,
  cookie: bigint,
  netns: number,
  { renew = false, datagrams = false }: { readonly renew?: boolean; readonly datagrams?: boolean } = {},
): Promise<GuardReport> {
  const interfaces = interfacesIn(netns).filter(({ loopback }) => !loopback)
  const alive = sweep(pinRoot, cookie)
  const both = datagrams || [...alive].some((name) => name.endsWith('-ingress'))
  const wanted: readonly Direction[] = both ? ['egress', 'ingress'] : ['egress']
  const modules = new Map<boolean, GuardModule>()
  const report = { guarded: [] as string[], added: [] as string[] }
  try {
    for (const one of interfaces) {
      const ethernet = one.type === ARPHRD_ETHER
      const missing = wanted.filter((direction) => renew || !alive.has(pinName(cookie, one.index, direction)))
      let there = true
      for (const direction of missing) {
        const module = modules.get(ethernet) ?? (await loadGuard(pinRoot, cookie, ethernet))
        modules.set(ethernet, module)
        const name = pinName(cookie, one.index, direction)
        const path = `${pinRoot}/guards/${name}`
        if (alive.has(name)) replace(path, module, direction)
        else if (!attach(path, module, netns, one, direction)) there = false
        else if (report.added.at(-1) !== one.name) report.added.push(one.name)
      }
      if (there) report.guarded.push(one.name)
    }
    return report
  } finally {
    // The links hold the programs.
    for (const module of modules.values()) module.close()
  }
}

/** Takes the guards of a namespace away. Idempotent. */
export function releaseInterfaces(pinRoot: string, cookie: bigint): void {
  for (const { name } of pins(pinRoot, cookie)) {
    const path = `${pinRoot}/guards/${name}`
    using link = openPinnedLink(path)
    detach(link)
    rmSync(path, { force: true })
  }
}

/** Takes away what is left of namespaces that are none of these: their entries are gone, so they would refuse all TCP. */
export function purgeGuards(pinRoot: string, kept: ReadonlySet<bigint>): void {
  for (const cookie of new Set(pins(pinRoot).map((pin) => pin.cookie))) {
    if (!kept.has(cookie)) releaseInterfaces(pinRoot, cookie)
  }
}

function pinName(cookie: bigint, index: number, direction: Direction): string {
  return direction === 'egress' ? `${cookie}-${index}` : `${cookie}-${index}-ingress`
}

/** Removes the pins of interfaces that are gone; the names of the others. */
function sweep(pinRoot: string, cookie: bigint): Set<string> {
  const alive = new Set<string>()
  for (const { name, index } of pins(pinRoot, cookie)) {
    const path = `${pinRoot}/guards/${name}`
    using link = openPinnedLink(path)
    if (link.info().target === BigInt(index)) alive.add(name)
    else rmSync(path, { force: true })
  }
  return alive
}

function replace(path: string, module: GuardModule, direction: Direction): void {
  using link = openPinnedLink(path)
  link.update(module.programs[directions[direction]])
}

/** False if the interface is gone by now. */
function attach(
  path: string,
  module: GuardModule,
  netns: number,
  { name }: NetworkInterface,
  direction: Direction,
): boolean {
  let link: Link
  try {
    // Before the programs of others: one of them could say the last word.
    link = module.programs[directions[direction]].attachInterface(netns, name, { direction, order: 'first' })
  } catch (error) {
    if (error instanceof BpfError && error.code === 'ENODEV') return false
    throw error
  }
  using _link = link
  link.pin(path)
  return true
}

function detach(link: Link): void {
  try {
    link.detach()
  } catch (error) {
    // The interface is gone, and the attachment with it.
    if (!(error instanceof BpfError && error.code === 'ENOLINK')) throw error
  }
}
