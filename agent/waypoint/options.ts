// The flags of `ambit waypoint`. Must not live here: what they start (main.ts).
import { Command } from 'commander'

export interface WaypointOptions {
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly control: string
  readonly rootCert: string
  readonly tokenFile: string
  readonly listen: string
  readonly http: readonly string[]
  readonly metrics: string
  readonly ready: string
  readonly admin: string
  readonly stateDir?: string
  readonly node: string
  readonly podName: string
  readonly clusterId: string
  readonly drainSeconds: string
  readonly logLevel: string
}

/** Parses the flags; `run` gets them. */
export function waypointCommand(run: (options: WaypointOptions) => Promise<void>): Command {
  return new Command('ambit waypoint')
    .description('The L7 program: takes HBONE, authorises and routes HTTP, forwards over HBONE.')
    .requiredOption('--name <gateway>', 'name of the Gateway this waypoint serves')
    .requiredOption('--namespace <namespace>', 'namespace of the Gateway')
    .requiredOption('--service-account <name>', 'own service account')
    .requiredOption('--control <host:port>', 'address of the control plane')
    .requiredOption('--root-cert <file>', 'PEM file with the mesh roots')
    .requiredOption('--token-file <file>', 'own token, read again at every connect')
    .option('--listen <host:port>', 'HBONE listener', '[::]:15008')
    .option(
      '--http <listener>',
      'plaintext HTTP listener, HOST:PORT=NAMESPACE/HOSTNAME:PORT of the service it serves; may be repeated',
      (text: string, all: string[]) => [...all, text],
      [],
    )
    .option('--metrics <host:port>', 'GET /metrics', '[::]:15020')
    .option('--ready <host:port>', 'GET /healthz/ready', '[::]:15021')
    .option('--admin <address>', 'admin server, on loopback or unix:PATH', '127.0.0.1:15000')
    .option('--state-dir <dir>', 'keeps the last good configuration over a restart')
    .option('--node <name>', 'node this waypoint runs on, for locality', process.env['NODE_NAME'] ?? '')
    .option('--pod-name <name>', 'own pod name', process.env['POD_NAME'] ?? process.env['HOSTNAME'] ?? 'waypoint')
    .option('--cluster-id <id>', 'cluster name sent to control', 'Kubernetes')
    .option('--drain-seconds <n>', 'time for requests in flight after SIGTERM', '20')
    .option('--log-level <level>', 'trace, debug, info, warn, error', 'info')
    .addHelpText(
      'after',
      '\nExample:\n  ambit waypoint --name waypoint --namespace shop --service-account waypoint \\\n    --control control.ambit-system.svc:15012 --root-cert /var/run/ambit/root-cert.pem --token-file /var/run/secrets/tokens/token\n',
    )
    .action(run)
}
