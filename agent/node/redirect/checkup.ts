// One look at what this agent put into the kernel, and the repair of what is not as it was left: somebody detached a link,
// emptied a map, closed a listener, removed a pin. Must not live here: when to look and who is told (../prove).
import { existsSync } from 'node:fs'
import { closeFd, socketCookie, socketListens, type MapHandle } from '../../../native/bpf/index.ts'
import type { Checkup, Repair } from './checks.ts'
import type { ListenerKind } from './contract.ts'
import { guardInterfaces } from './guards.ts'
import { mend, stateOf, type LinkState } from './held.ts'
import { kernelAddress } from './notes.ts'
import { entryOf, listenerKinds, makeListener, setAddresses, setListener, type Enrolled } from './pods.ts'
import { loadLookup, type NodePrograms } from './programs.ts'

function repairOf(state: LinkState, link: Repair): Repair {
  return state === 'unpinned' ? 'pin' : link
}

/** The node's programs, the pins of its maps, the exemption of this agent. Some ten system calls when all is well. */
export function checkNode(
  programs: NodePrograms,
  pinRoot: string,
  agents: readonly bigint[],
): readonly Repair[] | 'succeeded' {
  const repairs: Repair[] = []
  for (const attachment of programs.attachments) {
    const { program, cgroup, order, held } = attachment
    const state = stateOf(held)
    if (state === 'succeeded') return 'succeeded'
    if (state === 'right') continue
    attachment.held = mend(held, state, program, () => program.attachCgroup(cgroup, { order }))
    repairs.push(repairOf(state, 'node_link'))
  }
  for (const [name, map] of Object.entries<MapHandle>(programs.maps)) {
    const path = `${pinRoot}/${name}`
    if (existsSync(path)) continue
    map.pin(path)
    repairs.push('pin')
  }
  for (const id of agents) {
    if (programs.maps.ambit_agents.has(id)) continue
    programs.maps.ambit_agents.set(id, 1)
    repairs.push('agent_entry')
  }
  return repairs
}

/** One pod: its program, its listeners, its entries. Some ten system calls when all is well. */
export async function checkPod(
  programs: NodePrograms,
  pinRoot: string,
  pod: Enrolled,
  guarded: boolean,
): Promise<Checkup> {
  const repairs: Repair[] = []
  for (const kind of listenerKinds) {
    if (!socketListens(pod.listeners[kind])) replaceListener(programs, pod, kind, repairs)
    else checkListenerEntry(programs, pod, kind, repairs)
  }
  checkEntries(programs, pod, repairs)
  await checkLink(pinRoot, pod, repairs)
  const datagrams = pod.refusesDatagrams === true
  const { added } = guarded ? await guardInterfaces(pinRoot, pod.cookie, pod.netns, { datagrams }) : { added: [] }
  repairs.push(...added.map((): Repair => 'guard'))
  return { repairs, listeners: pod.listeners }
}

async function checkLink(pinRoot: string, pod: Enrolled, repairs: Repair[]): Promise<void> {
  const state = stateOf(pod.held)
  // A newer agent that has this pod has the node's links too: that is told by checkNode.
  if (state === 'right' || state === 'succeeded') return
  const module = await loadLookup(pinRoot, pod.cookie)
  try {
    const program = module.programs.ambit_lookup
    pod.held = mend(pod.held, state, program, () => program.attachNetns(pod.netns))
    repairs.push(repairOf(state, 'pod_link'))
  } finally {
    module.close()
  }
}

/** A closed listener cannot be opened again: another takes its place, under another port. */
function replaceListener(programs: NodePrograms, pod: Enrolled, kind: ListenerKind, repairs: Repair[]): void {
  const old = pod.listeners[kind]
  const fd = makeListener(pod.netns)
  pod.listeners = { ...pod.listeners, [kind]: fd }
  closeFd(old)
  setListener(programs, pod.cookie, kind, fd)
  setEntry(programs, pod)
  repairs.push('listener')
}

function checkListenerEntry(programs: NodePrograms, pod: Enrolled, kind: ListenerKind, repairs: Repair[]): void {
  const { cookie, listeners } = pod
  const found = programs.maps.ambit_listeners.cookie({ cookie, kind: listenerKinds.indexOf(kind) })
  if (found === socketCookie(listeners[kind])) return
  setListener(programs, cookie, kind, listeners[kind])
  repairs.push('listener_entry')
}

/** What the tables say of the pod stays; where it is lost, the agent takes all until they say it again. */
function setEntry({ maps }: NodePrograms, { cookie, listeners, refusePlaintext }: Enrolled): void {
  const flags = maps.ambit_pods.get(cookie)?.flags ?? 0
  maps.ambit_pods.set(cookie, { ...entryOf(listeners, refusePlaintext), flags })
}

function checkEntries(programs: NodePrograms, pod: Enrolled, repairs: Repair[]): void {
  const { ambit_pods, ambit_addresses } = programs.maps
  const { cookie, addresses } = pod
  const wanted = entryOf(pod.listeners, pod.refusePlaintext)
  const found = ambit_pods.get(cookie)
  if (
    found?.state !== wanted.state ||
    found.refuse_plaintext !== wanted.refuse_plaintext ||
    wanted.listener_ports.some((port, i) => port !== found.listener_ports[i])
  ) {
    setEntry(programs, pod)
    repairs.push('pod_entry')
  }
  if (addresses.every((address) => ambit_addresses.has({ cookie, address: kernelAddress(address) }))) return
  setAddresses(programs, cookie, addresses)
  repairs.push('address_entry')
}
