// What libbpf-ts throws: one error per failed system call, with the kernel's errno, the call's name and a hint; and the
// verifier's refusal with its log. Must not live here: anything that decides what to do about an error.
import { constants } from 'node:os'

/** A failed system call or a refused request of this library. */
export class BpfError extends Error {
  /** The errno's name as in `ENOENT`, or a code of the library: `NOT_BUILT`, `NOT_LINUX`, `LAYOUT`, `NO_SUCH_NAME`, `NO_FEATURE`, `CLOSED`. */
  readonly code: string
  /** Positive errno; 0 where no system call failed. */
  readonly errno: number
  /** The call as the kernel's manual names it, as in `BPF_LINK_CREATE` or `setns`. */
  readonly syscall: string
  /** What a person can try. */
  readonly hint: string | undefined

  constructor(code: string, errno: number, syscall: string, message: string, hint?: string) {
    super(hint === undefined ? message : `${message}. ${hint}`)
    this.name = 'BpfError'
    this.code = code
    this.errno = errno
    this.syscall = syscall
    this.hint = hint
  }
}

/** The verifier refused a program. `message` has the summary; `log` has everything it said. */
export class VerifierError extends BpfError {
  /** Name of the refused program's function. */
  readonly program: string
  /** The verifier's log, a line each. */
  readonly log: readonly string[]
  /** The line or two of the log that state the cause. */
  readonly summary: string

  constructor(errno: number, program: string, log: readonly string[]) {
    const summary = summarize(log)
    super(nameOf(errno), errno, 'BPF_PROG_LOAD', `The kernel's verifier refused program ${program}: ${summary}`)
    this.name = 'VerifierError'
    this.program = program
    this.log = log
    this.summary = summary
  }
}

/**
 * The cause in a verifier log: its last telling line, with the line before when the last one only makes sense with it
 * (the rule of cilium/ebpf's internal/errors.go). Trailing statistics are not telling.
 */
export function summarize(log: readonly string[]): string {
  const telling = log
    .map((line) => line.trimEnd())
    .filter((line) => line !== '' && !/^(processed \d+ insns|verification time|stack depth|-- )/.test(line))
  const last = telling.at(-1)
  if (last === undefined) return 'no log'
  const before = telling.at(-2)
  if (before !== undefined && (/^R\d|^\t/.test(last) || last.startsWith('invalid bpf_context access'))) {
    return `${before.trim()}: ${last.trim()}`
  }
  return last.trim()
}

// Not util.getSystemErrorName, which knows libuv's errors only (no ENOLINK). Of aliases the first wins: EAGAIN.
const names = new Map<number, string>()
for (const [name, errno] of Object.entries(constants.errno)) if (!names.has(errno)) names.set(errno, name)

/** The errno's name, as in `EPERM`. */
export function nameOf(errno: number): string {
  // 524 is the kernel's own ENOTSUPP, which leaks out of bpf(2) and has no name in libc.
  if (errno === 524) return 'ENOTSUPP'
  return names.get(errno) ?? `E${errno}`
}

/** Causes seen often enough that their fix is worth printing, by call and code. */
const hints: Record<string, string> = {
  EPERM:
    'The process needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON (and CAP_SYS_ADMIN for setns), and seccomp must allow bpf(2)',
  'BPF_LINK_CREATE EPERM':
    'The process needs CAP_BPF and CAP_NET_ADMIN; if it has them, another program is attached there exclusively: see `bpftool cgroup show`',
  'BPF_OBJ_PIN EPERM': 'The pin path must lie on a mounted bpffs: mount -t bpf bpf /sys/fs/bpf',
  'BPF_OBJ_PIN EINVAL': 'The pin path must lie on a mounted bpffs: mount -t bpf bpf /sys/fs/bpf',
  'BPF_OBJ_PIN ENOENT': 'The directory of the pin path must exist on a mounted bpffs',
  'BPF_MAP_UPDATE_ELEM E2BIG': 'The map is full: raise its maxEntries before load',
  'BPF_MAP_UPDATE_ELEM ENOSPC': 'The map is full: raise its maxEntries before load',
  'BPF_LINK_UPDATE ENOLINK': 'What the link was attached to is gone: remove the pin and attach anew',
  ENOSYS: 'The kernel lacks bpf(2) or was built without CONFIG_BPF_SYSCALL',
}

/** The error for a failed call. `what` says what was being done to what, without a full stop. */
export function failure(errno: number, syscall: string, what: string, hint?: string): BpfError {
  const code = nameOf(errno)
  return new BpfError(
    code,
    errno,
    syscall,
    `${what} failed: ${syscall} answered ${code}`,
    hint ?? hints[`${syscall} ${code}`] ?? hints[code],
  )
}

/** Passes a non-negative result of a native call on; throws for −errno. */
export function check(result: number, syscall: string, what: string, hint?: string): number {
  if (result < 0) throw failure(-result, syscall, what, hint)
  return result
}
