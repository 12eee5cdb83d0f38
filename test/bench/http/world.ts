// The waypoint under test as it is deployed: `ambit control` on a folder of YAML, `ambit waypoint` with a token and a certificate from it, alone on its
// core; a server's side of HBONE with certificates of the same authority. All in a network namespace of the bench. Must not live here: nginx and the like (peers.ts), measuring (cases.ts).
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../../agent/base/clock.ts'
import { openAuthority } from '../../../agent/pki/authority.ts'
import { makeRequest } from '../../../agent/pki/csr.ts'
import { TokenIssuer } from '../../../agent/sandbox/tokens.ts'
import {
  ambitProgram,
  CLIENT_CORE,
  listening,
  nodeBinary,
  PROXY_CORE,
  start,
  until,
  type Program,
} from '../programs.ts'
import { APP_PORT, APPS, type Protocol } from './peers.ts'

const CLIENT = '10.84.0.1'
const WAYPOINT = '10.84.0.2'
export const HBONE_APPS = ['10.84.0.21', '10.84.0.22'] as const
const SERVICE_IP = { h1: '10.96.84.1', h2: '10.96.84.2', grpc: '10.96.84.3', hbone: '10.96.84.4' } as const
/** The waypoint's plaintext listeners. */
const PLAIN_PORT = { h1: 9001, h2: 9002, grpc: 9003 } as const

interface PodWish {
  readonly name: string
  readonly ip: string
  readonly labels: Readonly<Record<string, string>>
}

function pod({ name, ip, labels }: PodWish): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'bench', uid: `uid-${name}`, labels },
    spec: {
      serviceAccountName: labels['app'] ?? name,
      nodeName: 'node-1',
      containers: [{ name: 'app', image: 'app' }],
    },
    status: {
      phase: 'Running',
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  }
}

/** A service with two versions behind it, an 80/20 split and its policy. */
function service(name: keyof typeof SERVICE_IP, app: string, appProtocol: string, targetPort: number): object[] {
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'bench' },
      spec: {
        clusterIP: SERVICE_IP[name],
        clusterIPs: [SERVICE_IP[name]],
        selector: { app },
        ports: [{ name: 'web', port: 80, targetPort, protocol: 'TCP', appProtocol }],
      },
    },
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'VirtualService',
      metadata: { name, namespace: 'bench' },
      spec: {
        hosts: [name],
        http: [
          {
            route: [
              { destination: { host: name, subset: 'v1' }, weight: 80 },
              { destination: { host: name, subset: 'v2' }, weight: 20 },
            ],
          },
        ],
      },
    },
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'DestinationRule',
      metadata: { name, namespace: 'bench' },
      spec: { host: name, subsets: ['v1', 'v2'].map((version) => ({ name: version, labels: { version } })) },
    },
  ]
}

function policy(app: string, source: object): object {
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: `allow-${app}`, namespace: 'bench' },
    spec: {
      selector: { matchLabels: { app } },
      rules: [{ from: [{ source }], to: [{ operation: { methods: ['GET', 'POST'], paths: ['/*'] } }] }],
    },
  }
}

/** What `ambit control` reads: services in plaintext and one over HBONE, both behind the waypoint. */
export function worldObjects(): object[] {
  const versions = (ips: readonly string[], app: string, labels: Readonly<Record<string, string>>): object[] =>
    ips.map((ip, i) => pod({ name: `${app}-v${i + 1}`, ip, labels: { app, version: `v${i + 1}`, ...labels } }))
  const outside = { 'istio.io/dataplane-mode': 'none' }
  const waypointLabels = { 'gateway.networking.k8s.io/gateway-name': 'waypoint' }
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: 'bench',
        labels: { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'waypoint' },
      },
    },
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'Gateway',
      metadata: { name: 'waypoint', namespace: 'bench' },
      spec: { gatewayClassName: 'ambit-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'waypoint', namespace: 'bench', labels: waypointLabels },
      spec: {
        clusterIP: '10.96.84.254',
        clusterIPs: ['10.96.84.254'],
        selector: waypointLabels,
        ports: [{ name: 'mesh', port: 15008, targetPort: 15008, protocol: 'TCP', appProtocol: 'tls' }],
      },
    },
    pod({ name: 'waypoint', ip: WAYPOINT, labels: { ...waypointLabels, app: 'waypoint', ...outside } }),
    pod({ name: 'client', ip: CLIENT, labels: { app: 'client' } }),
    ...versions(APPS, 'plain', outside),
    ...versions(HBONE_APPS, 'secure', {}),
    ...service('h1', 'plain', 'http', APP_PORT.h1),
    ...service('h2', 'plain', 'http2', APP_PORT.h2),
    ...service('grpc', 'plain', 'grpc', APP_PORT.grpc),
    ...service('hbone', 'secure', 'http', 8080),
    policy('plain', { ipBlocks: ['127.0.0.0/8'] }),
    policy('secure', { principals: ['cluster.local/ns/bench/sa/client'] }),
  ]
}

/** Re-runs this process in a network namespace of its own, with the addresses of the pods on its loopback. Resolves to its exit code; undefined: it is there already. */
export function inNamespace(): number | undefined {
  if (process.env['AMBIT_BENCH_NETNS'] === 'yes') {
    const addresses = [CLIENT, WAYPOINT, ...APPS, ...HBONE_APPS].map((ip) => `ip addr add ${ip}/32 dev lo`)
    const made = spawnSync('sh', ['-ec', ['ip link set lo up', ...addresses].join('\n')], { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`no addresses in the network namespace: ${made.stderr}`)
    return undefined
  }
  const result = spawnSync('unshare', ['--net', process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, AMBIT_BENCH_NETNS: 'yes' },
  })
  if (result.error) throw result.error
  return result.status ?? 1
}

export interface HttpWorld {
  readonly waypoint: Program
  readonly control: Program
  readonly plainPort: Readonly<Record<Protocol, number>>
  /** Command line of the HBONE load generator for so many connections. */
  hboneLoad(connections: number, seconds: number): readonly string[]
  stop(): Promise<void>
}

export async function startWorld(folder: string): Promise<HttpWorld> {
  const config = join(folder, 'config')
  const state = join(folder, 'control')
  mkdirSync(config, { recursive: true })
  writeFileSync(
    join(config, 'world.yaml'),
    worldObjects()
      .map((one) => JSON.stringify(one))
      .join('\n---\n'),
  )
  const keys = join(folder, 'keys.jwks')
  const token = join(folder, 'token')
  const issuer = await TokenIssuer.create(keys)
  await issuer.write(token, {
    namespace: 'bench',
    serviceAccount: 'waypoint',
    pod: { name: 'waypoint', uid: 'uid-waypoint' },
    node: 'node-1',
  })

  const ambit = [ambitProgram]
  const control = start(
    'control',
    CLIENT_CORE,
    // prettier-ignore
    [...ambit, 'control', '--config-dir', config, '--listen', '127.0.0.1:15012', '--state-dir', state,
      '--token-keys', keys, '--admin', `unix:${join(folder, 'control.sock')}`],
    folder,
  )
  const programs = [control]
  const stop = async (): Promise<void> => {
    for (const program of programs.splice(0).reverse()) await program.stop()
  }
  try {
    await listening(control, '127.0.0.1', 15012)
    await until(control, 'made its root', () => existsSync(join(state, 'root-cert.pem')))
    const files = await certificates(state, folder, ['client', 'secure'])
    const plain = (['h1', 'h2', 'grpc'] as const).flatMap((protocol) => [
      '--http',
      `127.0.0.1:${PLAIN_PORT[protocol]}=bench/${protocol}.bench.svc.cluster.local:80`,
    ])
    const waypoint = start(
      'waypoint',
      PROXY_CORE,
      // prettier-ignore
      [...ambit, 'waypoint', '--name', 'waypoint', '--namespace', 'bench', '--service-account', 'waypoint', '--pod-name', 'waypoint',
        '--control', '127.0.0.1:15012', '--root-cert', join(state, 'root-cert.pem'), '--token-file', token, '--node', 'node-1',
        '--listen', `${WAYPOINT}:15008`, '--metrics', '127.0.0.1:15020', '--ready', '127.0.0.1:15021',
        '--admin', `unix:${join(folder, 'waypoint.sock')}`, '--drain-seconds', '0', ...plain],
      folder,
    )
    programs.push(waypoint)
    const app = start(
      'hbone-app',
      CLIENT_CORE,
      [nodeBinary, program('hbone-app.ts'), '--listen', HBONE_APPS.join(','), ...files('secure')],
      folder,
    )
    programs.push(app)
    await listening(app, HBONE_APPS[1], 15008)
    await until(waypoint, 'was ready', isReady)
    return {
      waypoint,
      control,
      plainPort: PLAIN_PORT,
      hboneLoad: (connections, seconds) => [
        // prettier-ignore
        nodeBinary,
        program('hbone-load.ts'),
        '--waypoint',
        WAYPOINT,
        '--source',
        CLIENT,
        '--authority',
        `${SERVICE_IP.hbone}:80`,
        '--host',
        'hbone',
        ...files('client'),
        '--connections',
        String(connections),
        '--seconds',
        String(seconds),
      ],
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

export function program(file: string): string {
  return fileURLToPath(new URL(file, import.meta.url))
}

/** Certificates of service accounts of `bench`, of control's own authority; gives the flags that name their files. */
export async function certificates(
  state: string,
  folder: string,
  accounts: readonly string[],
): Promise<(account: string) => string[]> {
  const authority = await openAuthority(state, 'bench', systemClock)
  for (const serviceAccount of accounts) {
    const identity = { trustDomain: 'cluster.local', namespace: 'bench', serviceAccount }
    const { key, csr } = await makeRequest(identity)
    const chain = await authority.issue(csr, identity, 86_400)
    writeFileSync(join(folder, `${serviceAccount}.key`), key, { mode: 0o600 })
    writeFileSync(join(folder, `${serviceAccount}.pem`), chain.slice(0, -1).join('\n'))
  }
  return (account) => [
    '--certificate',
    join(folder, `${account}.pem`),
    '--key',
    join(folder, `${account}.key`),
    '--trust',
    join(state, 'root-cert.pem'),
  ]
}

function isReady(): Promise<boolean> {
  return new Promise((resolve) => {
    get({ host: '127.0.0.1', port: 15021, path: '/healthz/ready', agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    }).on('error', () => resolve(false))
  })
}
