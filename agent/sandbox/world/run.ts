// Running the system's own tools (ip, bridge, nft, nsenter) and naming what went wrong. Must not live here: what is run.
import { spawn } from 'node:child_process'
import { AmbitError } from '../../base/errors.ts'

export interface RunOptions {
  /** Text for standard input. */
  readonly input?: string
  /** Name of a network namespace under /run/netns to run in. */
  readonly netns?: string
  /** Milliseconds until it is killed; default 20 000. */
  readonly timeoutMs?: number
}

/** Where named network namespaces live. */
export const NETNS_ROOT = '/run/netns'

/** Runs a program to its end; resolves with its output. Throws SANDBOX_TOOL_MISSING or SANDBOX_TOOL_FAILED. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program, list] = options.netns
    ? ['nsenter', [`--net=${NETNS_ROOT}/${options.netns}`, '--', command, ...args]]
    : [command, [...args]]
  return new Promise((resolve, reject) => {
    const child = spawn(program, list, { stdio: ['pipe', 'pipe', 'pipe'], timeout: options.timeoutMs ?? 20_000 })
    let output = ''
    let errors = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
    child.stdin.on('error', () => undefined)
    child.on('error', (cause: NodeJS.ErrnoException) =>
      reject(
        cause.code === 'ENOENT'
          ? new AmbitError('SANDBOX_TOOL_MISSING', `'${program}' is not installed`, {
              cause,
              hint: 'deploy/setup.sh installs it (Debian: iproute2, nftables, util-linux, tcpdump).',
            })
          : new AmbitError('SANDBOX_TOOL_FAILED', `${program} could not be started: ${cause.message}`, { cause }),
      ),
    )
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output)
      else
        reject(
          new AmbitError(
            'SANDBOX_TOOL_FAILED',
            `${command} ${args.join(' ')} failed (${signal ?? `exit ${code}`}): ${errors.trim() || output.trim()}`,
            process.getuid?.() === 0 ? {} : { hint: 'The sandbox needs root.' },
          ),
        )
    })
    child.stdin.end(options.input ?? '')
  })
}

/** Runs `ip -batch` with these lines. */
export function ip(lines: readonly string[], netns?: string): Promise<string> {
  return run('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n`, ...(netns ? { netns } : {}) })
}

/** Sets sysctls below /proc/sys/net inside a namespace; a name that this kernel does not have is skipped. */
export function sysctl(settings: Readonly<Record<string, string>>, netns: string): Promise<string> {
  const script = Object.entries(settings)
    .map(([name, value]) => `[ ! -e /proc/sys/net/${name} ] || echo '${value}' >/proc/sys/net/${name}`)
    .join('\n')
  return run('sh', ['-eu'], { input: `${script}\n`, netns })
}
