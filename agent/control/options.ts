// The flags of `ambit control`. Must not live here: what they do (main.ts).
import { hostname } from 'node:os'
import { Command, InvalidArgumentError } from 'commander'
import { splitHostPort } from '../base/ip.ts'
import { EXEMPT_NAMESPACES } from '../config/labels.ts'

export interface ControlFlags {
  /** One of `configDir`, `kube` and `kubeconfig` is given. */
  readonly configDir?: readonly string[]
  readonly kube: boolean
  readonly kubeconfig?: string
  readonly context?: string
  readonly systemNamespace: string
  readonly exemptNamespaces: readonly string[]
  readonly replica: string
  readonly webhook?: string
  readonly ready?: string
  readonly image?: string
  readonly listen: string
  /** With `configDir`; a cluster has a Secret and judges tokens itself. */
  readonly stateDir?: string
  readonly tokenKeys?: string
  readonly admin: string
  readonly metrics?: string
  readonly certificateSeconds: number
  readonly trustSpreadSeconds: number
  readonly logLevel: string
}

/** Parses `argv` (what follows `control`) and hands the flags over. */
export function controlCommand(action: (flags: ControlFlags) => Promise<void>): Command {
  const command = new Command('ambit control')
  return command
    .description('Reads configuration, streams it to agents and waypoints, and issues their certificates.')
    .option('--config-dir <dir>', 'folder or file of Kubernetes YAML; repeatable, a later one overlays', collect)
    .option('--kube', 'read the cluster this pod runs in, as its service account', false)
    .option('--kubeconfig <file>', 'read the cluster of this kubeconfig')
    .option('--context <name>', 'context of the kubeconfig (default: its current one)')
    .option(
      '--system-namespace <name>',
      "Ambit's own namespace",
      namespaceName,
      process.env['POD_NAMESPACE'] ?? 'ambit-system',
    )
    .option(
      '--exempt-namespaces <names>',
      'in a cluster: besides its own, namespaces whose pods are never captured, as the agents have them',
      names,
      EXEMPT_NAMESPACES,
    )
    .option('--replica <name>', 'name of this replica, unique', process.env['POD_NAME'] ?? hostname())
    .option('--webhook <host:port>', 'where the API server asks whether a resource is good (absent: nowhere)', address)
    .option('--ready <host:port>', 'readiness by itself (absent: only beside the metrics)', address)
    .option('--image <image>', 'of the waypoints it deploys', process.env['AMBIT_IMAGE'])
    .option('--listen <host:port>', 'where agents and waypoints connect (gRPC over TLS)', address, '0.0.0.0:15012')
    .option('--state-dir <dir>', 'with --config-dir: keeps ca-key.pem (0600) and root-cert.pem; made when absent')
    .option('--token-keys <file>', 'with --config-dir: JSON Web Key Set with the public keys that sign tokens')
    .option('--admin <address>', 'admin server: loopback HOST:PORT or unix:PATH', '127.0.0.1:15014')
    .option('--metrics <host:port>', 'metrics and readiness for scrapers; absent: only on the admin server', address)
    .option('--certificate-seconds <n>', 'longest life of a workload certificate', seconds, 86_400)
    .option(
      '--trust-spread-seconds <n>',
      'time everybody gets to hear of new roots before certificates are issued under them',
      spread,
      120,
    )
    .option('--log-level <level>', 'trace, debug, info, warn, error', 'info')
    .addHelpText(
      'after',
      `
Example:
  ambit control --config-dir deploy/examples/shop --listen 127.0.0.1:15012 \\
    --state-dir /var/lib/ambit/control --token-keys /var/lib/ambit/keys.jwks`,
    )
    .exitOverride()
    .showHelpAfterError('(ambit control --help lists the flags)')
    .action((flags: ControlFlags) => {
      const sources = [flags.configDir !== undefined, flags.kube, flags.kubeconfig !== undefined].filter(Boolean).length
      if (sources !== 1) command.error('error: give one of --config-dir, --kube and --kubeconfig')
      for (const [flag, value] of [
        ['--state-dir', flags.stateDir],
        ['--token-keys', flags.tokenKeys],
      ] as const)
        if (flags.configDir !== undefined && value === undefined) command.error(`error: --config-dir needs ${flag}`)
      return action(flags)
    })
}

function namespaceName(text: string): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)) return text
  throw new InvalidArgumentError('It must be the name of a namespace.')
}

function names(text: string): readonly string[] {
  return text
    .split(',')
    .filter((name) => name !== '')
    .map(namespaceName)
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

function address(text: string): string {
  if (!splitHostPort(text)) throw new InvalidArgumentError('Write HOST:PORT or [IPV6]:PORT.')
  return text
}

function seconds(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 60 || value > 90 * 86_400) {
    throw new InvalidArgumentError('Write whole seconds from 60 to 7776000 (90 days).')
  }
  return value
}

function spread(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > 86_400) {
    throw new InvalidArgumentError('Write whole seconds from 0 to 86400 (a day).')
  }
  return value
}
