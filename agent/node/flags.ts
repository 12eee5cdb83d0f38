// The flags of `ambit agent`. Must not live here: what they start (main.ts).
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { MAX_SOCKET_PATH } from './enroll/api.ts'
import { defaultExemptNamespaces } from './enroll/wanted.ts'

export interface AgentFlags {
  readonly node: string
  readonly control: string
  readonly rootCert: string
  readonly tokenFile: string
  readonly cgroup?: string
  readonly pinRoot: string
  readonly holder?: string
  readonly uninstall: boolean
  readonly probe: boolean
  readonly socket: string
  readonly stateDir: string
  readonly metrics: string
  readonly ready: string
  readonly admin: readonly string[]
  readonly kubeletPid?: number
  readonly kubeletCgroup?: string
  readonly exemptNamespaces: readonly string[]
  readonly cniConfDir?: string
  readonly cniBinDir?: string
  readonly cniSocket?: string
}

const EXAMPLE = `
Example:
  ambit agent --node node1 --control control.ambit-system.svc:15012 \\
    --root-cert /var/run/ambit/root-cert.pem --token-file /var/run/secrets/tokens/ambit-token \\
    --pin-root /sys/fs/bpf/ambit/node1 \\
    --holder /run/ambit/holder.sock \\
    --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin \\
    --socket /run/ambit/agent.sock --state-dir /var/lib/ambit/agent --admin unix:/run/ambit/admin.sock
  ambit agent --uninstall --pin-root /sys/fs/bpf/ambit/node1 --holder /run/ambit/holder.sock \\
    --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin
  ambit agent --probe --pin-root /sys/fs/bpf/ambit

Environment:
  AMBIT_LOG_LEVEL       trace, debug, info (default), warn, error
  AMBIT_DRAIN_SECONDS   how long running connections may go on after SIGTERM, default 5
  AMBIT_PROVE_SECONDS   how often each pod is proved to be protected, default 5
  AMBIT_FLOW_LOG_PER_SECOND
                        access lines for connections the kernel carries alone, default 1000; 0: none
  AMBIT_FEATURES_OFF    kernel features to treat as missing, by name, separated by commas
`

/** Its definition; `other`: for taking it off a node, or looking whether it could run, which need none of what running it does. */
export function agentCommand(other = false): Command {
  const command = new Command('ambit agent').description(
    'Captures the pods of this node and carries their traffic over mutual TLS.',
  )
  const needed = (flags: string, text: string): Command =>
    other ? command.option(flags, text) : command.requiredOption(flags, text)
  needed('--node <name>', 'name of this node, as its pods have it')
  needed('--control <host:port>', 'the control plane')
  needed('--root-cert <file>', 'PEM roots that control and the mesh are trusted by')
  needed('--token-file <file>', "this agent's token, read anew for each use")
  command.option('--cgroup <path>', "parent of the pods' cgroups (default: the one called kubepods)")
  command.requiredOption('--pin-root <path>', "folder on bpffs for this node's programs")
  command.option('--holder <path>', 'unix socket of ambit-holder, which keeps the listeners while no agent runs')
  needed('--socket <path>', 'unix socket on which pods are added and removed')
  needed('--state-dir <path>', 'where the last good state is kept')
  command.option('--metrics <host:port>', 'Prometheus metrics', '[::]:15020')
  command.option('--ready <host:port>', 'readiness', '[::]:15021')
  command.option(
    '--admin <address>',
    'state and log level: loopback HOST:PORT, or unix:PATH; may be repeated (default: 127.0.0.1:15000)',
    (address: string, before: readonly string[] | undefined) => [...(before ?? []), address],
  )
  command.option('--kubelet-pid <pid>', 'the process whose probes pass (default: the one called kubelet)', parsePid)
  command.option('--kubelet-cgroup <path>', 'the cgroup whose probes pass, whoever is in it')
  command.option(
    '--exempt-namespaces <names>',
    "namespaces whose pods are never captured: the mesh's own and the cluster's",
    parseNamespaces,
    defaultExemptNamespaces,
  )
  command.option('--cni-conf-dir <path>', 'where the runtime has its networks, as in /etc/cni/net.d (default: no CNI)')
  command.option('--cni-bin-dir <path>', 'where it looks for plugins, as in /opt/cni/bin; goes with --cni-conf-dir')
  command.option('--cni-socket <path>', '--socket as the runtime sees it (default: the same)', parseSocket)
  const takesOff =
    'remove everything from the kernel, the holder, CNI and the state, and end (--pin-root, --holder, --cni-*, --state-dir)'
  command.option('--uninstall', takesOff, false)
  const looks =
    'say as JSON whether an agent could run here, change nothing, and end: exit 1 if not (--pin-root, --cni-*)'
  command.option('--probe', looks, false)
  return command.addHelpText('after', EXAMPLE).exitOverride()
}

/** The flags, or the exit code when there is nothing to start (help, or a wrong flag, which has been printed). */
export function parseFlags(argv: readonly string[]): AgentFlags | number {
  const command = agentCommand(argv.includes('--uninstall') || argv.includes('--probe'))
  try {
    command.parse([...argv], { from: 'user' })
    const { cniConfDir, cniBinDir, uninstall, probe } = command.opts<AgentFlags>()
    if (uninstall && probe) command.error('error: give one of --uninstall and --probe')
    if ((cniConfDir === undefined) !== (cniBinDir === undefined)) {
      command.error('error: --cni-conf-dir and --cni-bin-dir go together')
    }
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    throw error
  }
  const flags = command.opts<Omit<AgentFlags, 'admin'> & { readonly admin?: readonly string[] }>()
  return { ...flags, admin: flags.admin ?? ['127.0.0.1:15000'] }
}

/** What the plugin could not read in its entry would let no pod start. */
function parseNamespaces(text: string): string[] {
  const names = text.split(',').map((name) => name.trim())
  if (names.every((name) => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name))) return names
  throw new InvalidArgumentError('They must be names of namespaces, separated by commas.')
}

function parseSocket(path: string): string {
  if (path.startsWith('/') && Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path
  throw new InvalidArgumentError(`It must be an absolute path of at most ${MAX_SOCKET_PATH} bytes.`)
}

function parsePid(text: string): number {
  const pid = Number(text)
  if (Number.isSafeInteger(pid) && pid > 0) return pid
  throw new InvalidArgumentError('It must be the number of a process.')
}
