// The kubelet of this node, whose probes pass also where plaintext is refused: found by its process, known to the kernel by
// its cgroup, followed when it restarts. Where others share that cgroup nobody can be told apart, and nothing passes. Must not
// live here: what becomes of its connections (bpf/), when to look (../prove).
import { existsSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupId, openPinnedLink, type Program } from '../../../native/bpf/index.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { cgroupOf, isWithin } from './cgroup.ts'
import type { KubeletState, Repair } from './checks.ts'
import { hold, mend, stateOf, type HeldLink } from './held.ts'

export interface KubeletOptions {
  /** Its process. Default: the process called `kubelet` that root runs in the node's network namespace, outside the pods' cgroup. */
  readonly pid?: number
  /** A cgroup that is the kubelet's by the word of who starts the agent, whoever else is in it. */
  readonly cgroup?: string
  /** Path of the node's network namespace, in which it is looked for by name. Default: this process's and the first one's. */
  readonly netns?: string
}

const NAME = 'kubelet'
/** An agent on the host network is in the node's; one in a pod that sees the node's processes finds it at the first of them. */
const NODE_NAMESPACES = ['/proc/self/ns/net', '/proc/1/ns/net'] as const
/** The whole of /proc is searched at every such look while there is none. */
const SEARCH_EVERY = 6
/** Parents asked of a process before it counts as foreign. */
const MAX_DEPTH = 64

/** One found: its cgroup and, unless that was named, its process. */
interface Found {
  readonly cgroup: string
  readonly pid: number | undefined
}

export class Kubelet {
  state: KubeletState = { state: 'missing', cgroup: '', detail: 'Not looked for yet.' }
  readonly #program: Program
  readonly #pin: string
  readonly #podsCgroup: string
  readonly #options: KubeletOptions
  #held: HeldLink | undefined
  #pid: { readonly pid: number; readonly started: string } | undefined
  #looks = 0

  constructor(program: Program, pinRoot: string, podsCgroup: string, options: KubeletOptions) {
    this.#program = program
    this.#pin = `${pinRoot}/links/${program.name}`
    this.#podsCgroup = podsCgroup
    this.#options = options
  }

  /** Looks for it, and puts the program on its cgroup. The repair, if the program was there before and no longer. */
  look(): readonly Repair[] {
    let found: Found | KubeletState
    try {
      found = this.#find()
    } catch (error) {
      // It ended while it was asked about, or the cgroup went: the next look tells.
      found = { state: 'missing', cgroup: '', detail: messageOf(error) }
    }
    if ('state' in found) {
      this.state = found
      this.#letGo()
      return []
    }
    const { cgroup } = found
    const target = cgroupId(cgroup)
    const repairs = this.#put(cgroup, target)
    const who = found.pid === undefined ? 'Named by --kubelet-cgroup.' : `Process ${found.pid}.`
    this.state = { state: 'exempt', cgroup, detail: who }
    return repairs
  }

  close(): void {
    this.#held?.link.close()
    this.#held = undefined
  }

  #put(cgroup: string, target: bigint): readonly Repair[] {
    const attach = () => this.#program.attachCgroup(cgroup)
    if (this.#held?.target === target) {
      const state = stateOf(this.#held)
      if (state === 'right' || state === 'succeeded') return []
      this.#held = mend(this.#held, state, this.#program, attach)
      return [state === 'unpinned' ? 'pin' : 'kubelet_link']
    }
    const old = this.#held ?? this.#adopt(target)
    if (old?.target === target) {
      this.#held = old
      return []
    }
    const link = attach()
    try {
      rmSync(this.#pin, { force: true })
      link.pin(this.#pin)
      this.#held = hold(link, this.#program, this.#pin)
      old?.link.close()
      return []
    } catch (error) {
      link.close()
      throw error
    }
  }

  /** What an earlier agent pinned, with this one's program in it; undefined if there is nothing of use. */
  #adopt(target: bigint): HeldLink | undefined {
    if (!existsSync(this.#pin)) return undefined
    const link = openPinnedLink(this.#pin)
    if (link.info().target === target) {
      link.update(this.#program)
      return hold(link, this.#program, this.#pin)
    }
    link.close()
    return undefined
  }

  #letGo(): void {
    this.close()
    rmSync(this.#pin, { force: true })
  }

  #find(): Found | KubeletState {
    const { pid, cgroup, netns } = this.#options
    if (cgroup !== undefined) return this.#judged({ cgroup, pid: undefined })
    if (pid !== undefined) return this.#judged({ cgroup: cgroupOf(pid), pid })
    if (this.#pid && startOf(this.#pid.pid) === this.#pid.started) {
      return this.#judged({ cgroup: cgroupOf(this.#pid.pid), pid: this.#pid.pid })
    }
    // Known and gone: it is coming back. Never seen: perhaps there is none.
    if (this.#pid === undefined && this.#looks++ % SEARCH_EVERY !== 0) return this.state
    const all = kubelets(this.#podsCgroup, netns === undefined ? NODE_NAMESPACES : [netns])
    const [only, second] = all
    if (only === undefined) {
      return { state: 'missing', cgroup: '', detail: `No process called ${NAME} is in the node’s network namespace.` }
    }
    if (second !== undefined) {
      const detail = `Processes ${all.join(', ')} are called ${NAME}: --kubelet-pid says which one is.`
      return { state: 'shared', cgroup: '', detail }
    }
    this.#pid = { pid: only, started: startOf(only) ?? '' }
    return this.#judged({ cgroup: cgroupOf(only), pid: only })
  }

  #judged(found: Found): Found | KubeletState {
    const { cgroup, pid } = found
    if (isWithin(this.#podsCgroup, cgroup) || isWithin(cgroup, this.#podsCgroup)) {
      return { state: 'shared', cgroup, detail: `It holds, or lies in, the cgroup of the pods, ${this.#podsCgroup}.` }
    }
    if (pid === undefined) return found
    const others = processesIn(cgroup).filter((one) => !descends(one, pid))
    if (others.length === 0) return found
    const some = others.slice(0, 3).map((one) => `${commandOf(one)} (${one})`)
    const more = others.length > some.length ? ` and ${others.length - some.length} more` : ''
    return { state: 'shared', cgroup, detail: `Process ${pid} shares it with ${some.join(', ')}${more}.` }
  }
}

/** Throws REDIRECT_NO_KUBELET for a cgroup that cannot be one, so that a wrong flag is heard of at once. */
export function checkKubelet({ pid, cgroup }: KubeletOptions): void {
  if (cgroup !== undefined && !existsSync(`${cgroup}/cgroup.procs`)) {
    throw new AmbitError('REDIRECT_NO_KUBELET', `${cgroup} is not a cgroup of the v2 hierarchy.`, {
      hint: 'Name the kubelet’s own cgroup, as /sys/fs/cgroup/system.slice/kubelet.service, or leave it to be found.',
    })
  }
  if (pid !== undefined && !existsSync(`/proc/${pid}`)) {
    throw new AmbitError('REDIRECT_NO_KUBELET', `There is no process ${pid}.`, {
      hint: 'The agent must see the node’s processes (hostPID), and name the kubelet’s as it sees it.',
    })
  }
}

/** Processes of root called kubelet in the node's network namespace, but for those of pods, who may call theirs what they like. */
function kubelets(podsCgroup: string, namespaces: readonly string[]): number[] {
  const inodes = namespaces.map((path) => statSync(path).ino)
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return (
          commandOf(pid) === NAME &&
          statSync(`/proc/${pid}`).uid === 0 &&
          inodes.includes(statSync(`/proc/${pid}/ns/net`).ino) &&
          !isWithin(podsCgroup, cgroupOf(pid))
        )
      } catch {
        return false
      }
    })
}

/** All processes of a cgroup and of those below it. */
function processesIn(cgroup: string): number[] {
  const own = readFileSync(join(cgroup, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  const below = readdirSync(cgroup, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return [...own, ...below.flatMap((entry) => processesIn(join(cgroup, entry.name)))]
}

/** True for the process itself and what it started. What has ended meanwhile is nobody's. */
function descends(pid: number, from: number): boolean {
  let at = pid
  for (let depth = 0; depth < MAX_DEPTH && at > 1; depth++) {
    if (at === from) return true
    const parent = statusOf(at)?.[1]
    if (parent === undefined) return true
    at = Number(parent)
  }
  return at === from
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd()
  } catch {
    return '?'
  }
}

/** Fields of /proc/PID/stat from the state on (proc(5), field 3), undefined for a process that is gone. */
function statusOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name before may hold blanks and parentheses.
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/** When a process was started, in ticks since boot: tells it from a later one of the same number. */
function startOf(pid: number): string | undefined {
  return statusOf(pid)?.[19]
}
