// A link this agent answers for: what it must look like, whether it still does, and how it is put right. Must not live here:
// which programs go where (programs.ts, pods.ts), when somebody looks (../prove).
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { BpfError, openProgramById, type Link, type Program } from '../../../native/bpf/index.ts'

/** What a link is expected to be; the kernel's own numbers, taken when it was made or adopted. */
export interface HeldLink {
  readonly link: Link
  readonly program: { readonly id: number; readonly name: string; readonly loadedAt: bigint }
  /** Cgroup id, inode of a network namespace, index of an interface. */
  readonly target: bigint
  readonly pin: string
}

/**
 * `right`: the program expected, on the target expected, pinned. `detached`: the kernel runs nothing there. `replaced`: a
 * program of somebody else is in it. `unpinned`: it would end with this process. `succeeded`: a newer agent put its own
 * program of that name there, so it is no longer this agent's to mend.
 */
export type LinkState = 'right' | 'detached' | 'replaced' | 'unpinned' | 'succeeded'

/** Takes a link as it is now for what it must be. */
export function hold(link: Link, program: Program, pin: string): HeldLink {
  const { target } = link.info()
  return { link, program: { id: program.id, name: program.name, loadedAt: program.loadedAt }, target, pin }
}

/** Asks the kernel: one system call for a link that is right, a look at the bpffs. */
export function stateOf(held: HeldLink): LinkState {
  const info = held.link.info()
  if (info.programId !== held.program.id) return isNewer(info.programId, held) ? 'succeeded' : 'replaced'
  if (info.target !== held.target) return 'detached'
  return existsSync(held.pin) ? 'right' : 'unpinned'
}

function isNewer(id: number, held: HeldLink): boolean {
  try {
    const other = openProgramById(id)
    try {
      return other.name === held.program.name && other.loadedAt > held.program.loadedAt
    } finally {
      other.close()
    }
  } catch (error) {
    // Gone between the two calls: whatever it was, the next look tells.
    if (error instanceof BpfError && error.code === 'ENOENT') return false
    throw error
  }
}

/**
 * Puts a link right that is not: into an attached one goes the program again, for a detached one `attach` makes another, and
 * the pin follows. Gives what is held from now on.
 */
export function mend(held: HeldLink, state: LinkState, program: Program, attach: () => Link): HeldLink {
  switch (state) {
    case 'replaced':
      held.link.update(program)
      return hold(held.link, program, held.pin)
    case 'detached': {
      const link = attach()
      try {
        pinAnew(link, held.pin)
        const made = hold(link, program, held.pin)
        held.link.close()
        return made
      } catch (error) {
        link.close()
        throw error
      }
    }
    case 'unpinned':
      pinAnew(held.link, held.pin)
      return held
    default:
      return held
  }
}

function pinAnew(link: Link, pin: string): void {
  mkdirSync(dirname(pin), { recursive: true, mode: 0o700 })
  rmSync(pin, { force: true })
  link.pin(pin)
}
