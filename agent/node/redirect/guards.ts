// The guard of a pod's interfaces: a copy of bpf/guard.bpf.c at the exit of each but loopback, pinned as `<cookie>-<index>`, so
// that it outlives the agent and its successor finds it. Must not live here: what the guard lets pass (bpf/lib/decide_guard.h).
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { BpfError, interfacesIn, openPinnedLink, type Link, type NetworkInterface } from '../../../native/bpf/index.ts'
import type { GuardReport } from './contract.ts'
import { loadGuard, type GuardModule } from './programs.ts'

/** linux/if_arp.h: frames begin with an Ethernet header. */
const ARPHRD_ETHER = 1

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
    const match = /^(\d+)-(\d+)$/.exec(name)
    if (!match) return []
    const pin = { name, cookie: BigInt(match[1] as string), index: Number(match[2]) }
    return cookie === undefined || pin.cookie === cookie ? [pin] : []
  })
}

/**
 * Guards every interface of the namespace but loopback, up or down. `renew`: those that are guarded already get this
 * agent's program in place of an earlier one's; else they are only looked at. What is pinned of interfaces that are gone is
 * removed. Throws BpfError.
 */
export async function guardInterfaces(
  pinRoot: string,
  cookie: bigint,
  netns: number,
  renew: boolean,
): Promise<GuardReport> {
  const interfaces = interfacesIn(netns).filter(({ loopback }) => !loopback)
  const alive = sweep(pinRoot, cookie)
  const modules = new Map<boolean, GuardModule>()
  const report = { guarded: [] as string[], added: [] as string[] }
  try {
    for (const one of interfaces) {
      const known = alive.has(one.index)
      if (known && !renew) {
        report.guarded.push(one.name)
        continue
      }
      const ethernet = one.type === ARPHRD_ETHER
      const module = modules.get(ethernet) ?? (await loadGuard(pinRoot, cookie, ethernet))
      modules.set(ethernet, module)
      if (known) replace(pinOf(pinRoot, cookie, one.index), module)
      else if (!attach(pinOf(pinRoot, cookie, one.index), module, netns, one)) continue
      else report.added.push(one.name)
      report.guarded.push(one.name)
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

function pinOf(pinRoot: string, cookie: bigint, index: number): string {
  return `${pinRoot}/guards/${cookie}-${index}`
}

/** Removes the pins of interfaces that are gone; the indices of the others. */
function sweep(pinRoot: string, cookie: bigint): Set<number> {
  const alive = new Set<number>()
  for (const { name, index } of pins(pinRoot, cookie)) {
    const path = `${pinRoot}/guards/${name}`
    using link = openPinnedLink(path)
    if (link.info().target === BigInt(index)) alive.add(index)
    else rmSync(path, { force: true })
  }
  return alive
}

function replace(path: string, module: GuardModule): void {
  using link = openPinnedLink(path)
  link.update(module.programs.ambit_guard)
}

/** False if the interface is gone by now. */
function attach(path: string, module: GuardModule, netns: number, { name }: NetworkInterface): boolean {
  let link: Link
  try {
    // Before the programs of others: one of them could say the last word.
    link = module.programs.ambit_guard.attachInterface(netns, name, { direction: 'egress', order: 'first' })
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
