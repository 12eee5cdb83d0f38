// The node's part of the kernel half: the programs on the node's cgroup, attached once and pinned; a new agent adopts the
// links and puts its own programs in their place without a gap. Must not live here: pods (pods.ts).
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import {
  BpfError,
  cgroupId,
  ensureBpffs,
  isBpffs,
  openObject,
  openPinnedLink,
  type CgroupOrder,
  type Link,
  type Program,
  type RingMap,
} from '../../../native/bpf/index.ts'
import { connectSchema } from '../../../native/bpf/gen/connect.ts'
import { getpeernameSchema } from '../../../native/bpf/gen/getpeername.ts'
import { guardSchema } from '../../../native/bpf/gen/guard.ts'
import { skLookupSchema } from '../../../native/bpf/gen/sk_lookup.ts'
import { setsockoptSchema } from '../../../native/bpf/gen/setsockopt.ts'
import { judgeSchema } from '../../../native/bpf/gen/judge.ts'
import { kubeletSchema } from '../../../native/bpf/gen/kubelet.ts'
import { sockopsSchema } from '../../../native/bpf/gen/sockops.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { edgeKeyText, EdgeValues } from './edges.ts'
import { liveObject } from './live.ts'
import { hold, type HeldLink } from './held.ts'
import type { JudgePrograms } from './judge.ts'

const BPFFS = '/sys/fs/bpf'

/** The compiled programs, as bpf/build.sh leaves them. */
function objectFile(name: string): string {
  return new URL(`../../../bpf/build/${name}.bpf.o`, import.meta.url).pathname
}

/** Loads the node's programs; maps are adopted from pins or made and pinned. */
async function loadNodeModules(pinRoot: string, flowLogPerSecond: number) {
  const connect = await openObject(objectFile('connect'), connectSchema).load({ pinRoot })
  const getpeername = await openObject(objectFile('getpeername'), getpeernameSchema).load({ pinRoot })
  const object = openObject(objectFile('sockops'), sockopsSchema)
  object.rodata.flow_log_per_second = flowLogPerSecond
  const sockops = await object.load({ pinRoot })
  const kubelet = await openObject(objectFile('kubelet'), kubeletSchema).load({ pinRoot })
  return { connect, getpeername, sockops, kubelet }
}

/** What edges are read from. Without an iterator a running connection is not seen before it ends. */
async function loadEdges(pinRoot: string) {
  const { load, walk } = liveObject()
  const module = await load(pinRoot)
  const values = new EdgeValues()
  const edges = module.map(module.maps.ambit_edges.shape.name, edgeKeyText, values)
  // The edge for all others, made first so that there is always room for it.
  const others = '\0'.repeat(edgeKeyText.size)
  if (!edges.has(others)) edges.set(others, 0)
  return { module, edges, values, live: walk && (() => walk(module)) }
}

/** One copy of the sk_lookup program, for the namespace with this cookie. */
export async function loadLookup(pinRoot: string, cookie: bigint) {
  const object = openObject(objectFile('sk_lookup'), skLookupSchema)
  object.rodata.netns_cookie = cookie
  return object.load({ pinRoot })
}

/** One copy of the guard, for interfaces of one kind of the namespace with this cookie. */
export async function loadGuard(pinRoot: string, cookie: bigint, ethernet: boolean) {
  const object = openObject(objectFile('guard'), guardSchema)
  object.rodata.netns_cookie = cookie
  object.rodata.is_ethernet = ethernet ? 1 : 0
  return object.load({ pinRoot })
}

export type GuardModule = Awaited<ReturnType<typeof loadGuard>>
export type LookupModule = Awaited<ReturnType<typeof loadLookup>>
type NodeModules = Awaited<ReturnType<typeof loadNodeModules>>

/** One program on a cgroup of the node, and the link that holds it there. */
export interface Attachment {
  readonly program: Program
  readonly cgroup: string
  readonly order: CgroupOrder
  held: HeldLink
}

/** The node's programs and all maps, ready to use. */
export interface NodePrograms {
  readonly maps: NodeModules['connect']['maps'] & LookupModule['maps']
  readonly attachments: readonly Attachment[]
  /** What edges.ts reads. */
  readonly telemetry: Awaited<ReturnType<typeof loadEdges>>
  /** Where these programs tell of flows, and no others: its only reader is this agent. */
  readonly flowLog: RingMap
  /** For the kubelet's cgroup, once it is found. */
  readonly kubelet: Program
  /** Where the kernel lets programs end connections. */
  readonly judge: JudgePrograms | undefined
  /** Closes this process's handles; what is pinned stays. */
  close(): void
}

/**
 * Loads, attaches or adopts; `extras`: what the kernel need not have. Programs that carry notes go in before those that write them, so that no captured
 * connection meets half the machinery. Throws AmbitError REDIRECT_NO_BPFFS, REDIRECT_PIN_MISMATCH,
 * REDIRECT_LOAD_FAILED.
 */
export async function openPrograms(
  cgroup: string,
  pinRoot: string,
  extras: {
    readonly setsockopt: boolean
    readonly guard: boolean
    readonly judge: boolean
    readonly flowLogPerSecond: number
  },
): Promise<NodePrograms> {
  const id = cgroupId(cgroup)
  makePinFolders(pinRoot)
  const attachments: Attachment[] = []
  const modules: { close(): void }[] = []
  const close = (): void => {
    for (const { held } of attachments) held.link.close()
    for (const module of modules) module.close()
  }
  try {
    const node = await loadNodeModules(pinRoot, extras.flowLogPerSecond)
    modules.push(node.connect, node.getpeername, node.sockops, node.kubelet)
    // Cookie 0 belongs to no namespace: this copy is for its maps, and to have the verifier's word before the first pod.
    const lookup = await loadLookup(pinRoot, 0n)
    modules.push(lookup)
    const telemetry = await loadEdges(pinRoot)
    modules.push(telemetry.module)
    if (extras.guard) modules.push(await loadGuard(pinRoot, 0n, true))
    const { ambit_peername4, ambit_peername6 } = node.getpeername.programs
    const { ambit_connect4, ambit_connect6 } = node.connect.programs
    const put = (program: Program, order: CgroupOrder): void => {
      const pin = `${pinRoot}/links/${program.name}`
      const held = hold(attach(program, cgroup, id, pin, order), program, pin)
      attachments.push({ program, cgroup, order, held })
    }
    for (const program of [node.sockops.programs.ambit_sockops, ambit_peername4, ambit_peername6]) put(program, 'last')
    // First among the programs of this cgroup, so that the address is still the one the app dialled.
    for (const program of [ambit_connect4, ambit_connect6]) put(program, 'first')
    if (extras.setsockopt) {
      const module = await openObject(objectFile('setsockopt'), setsockoptSchema).load({ pinRoot })
      modules.push(module)
      put(module.programs.ambit_setsockopt, 'last')
    }
    const judge = extras.judge ? await openObject(objectFile('judge'), judgeSchema).load({ pinRoot }) : undefined
    if (judge) modules.push(judge)
    const flowLog = node.sockops.maps.ambit_flow_log
    const kubelet = node.kubelet.programs.ambit_kubelet
    return {
      maps: { ...node.connect.maps, ...lookup.maps },
      attachments,
      kubelet,
      judge: judge && { program: judge.programs.ambit_judge, condemned: judge.maps.ambit_condemned },
      telemetry,
      flowLog,
      close,
    }
  } catch (error) {
    close()
    throw refusal(error, pinRoot)
  }
}

/** Names of the pinned links of pods. */
export function podPins(pinRoot: string): string[] {
  const folder = `${pinRoot}/pods`
  return existsSync(folder) ? readdirSync(folder) : []
}

function attach(program: Program, cgroup: string, id: bigint, pin: string, order: CgroupOrder): Link {
  if (existsSync(pin)) {
    const adopted = openPinnedLink(pin)
    try {
      if (adopted.info().target === id) {
        adopted.update(program)
        return adopted
      }
    } catch (error) {
      // The cgroup went away under the link (ENOLINK): made anew below. Anything else is not understood.
      if (!(error instanceof BpfError && error.code === 'ENOLINK')) {
        adopted.close()
        throw error
      }
    }
    adopted.close()
  }
  // The new link first, then the old pin: there is no moment without a program.
  const link = program.attachCgroup(cgroup, { order })
  try {
    rmSync(pin, { force: true })
    link.pin(pin)
    return link
  } catch (error) {
    link.close()
    throw error
  }
}

function makePinFolders(pinRoot: string): void {
  try {
    if (pinRoot.startsWith(`${BPFFS}/`)) ensureBpffs(BPFFS)
    mkdirSync(`${pinRoot}/links`, { recursive: true, mode: 0o700 })
    mkdirSync(`${pinRoot}/pods`, { recursive: true, mode: 0o700 })
    mkdirSync(`${pinRoot}/guards`, { recursive: true, mode: 0o700 })
    if (isBpffs(pinRoot)) return
  } catch (error) {
    throw new AmbitError('REDIRECT_NO_BPFFS', `The pin folder ${pinRoot} cannot be made: ${messageOf(error)}.`, {
      hint: `It must lie on a mounted bpffs: mount -t bpf bpf ${BPFFS}`,
      cause: error,
    })
  }
  throw new AmbitError('REDIRECT_NO_BPFFS', `The pin folder ${pinRoot} does not lie on a bpffs.`, {
    hint: `Choose a folder under ${BPFFS}, or mount one: mount -t bpf bpf ${BPFFS}`,
  })
}

function refusal(error: unknown, pinRoot: string): unknown {
  if (!(error instanceof BpfError)) return error
  if (error.code === 'PIN_MISMATCH') {
    return new AmbitError('REDIRECT_PIN_MISMATCH', `Pinned maps are of another version: ${error.message}.`, {
      hint: `Start the version that made them, or remove ${pinRoot} (traffic is plain until the agent is back).`,
      cause: error,
    })
  }
  return new AmbitError('REDIRECT_LOAD_FAILED', `The kernel programs cannot be put in place: ${error.message}`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  })
}
