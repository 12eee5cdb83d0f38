// The program as it is started: YAML in a folder, gRPC over TLS, signals.
import { spawn, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { MeshState } from '../mesh/state.ts'
import { connectControl } from '../wire/connect-control.ts'
import { agentKinds, type ControlConnection } from '../wire/contract.ts'
import { main } from './main.ts'

const pod = (name: string, node: string, address: string): string => `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  labels: {app: ${name}}
spec:
  serviceAccountName: ${name}
  nodeName: ${node}
  containers: [{name: app, image: echo}]
status:
  phase: Running
  podIP: ${address}
  podIPs: [{ip: ${address}}]
  conditions: [{type: Ready, status: "True"}]
`
const namespace = `
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {istio.io/dataplane-mode: ambient}
`
const policy = (method: string): string => `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: ${method}}}
`

interface Running {
  readonly child: ChildProcess
  readonly lines: Record<string, unknown>[]
  readonly ended: Promise<number | null>
}

describe('ambit control', { timeout: 30_000 }, () => {
  let folder: string
  let config: string
  let signer: KeyObject
  let port: number
  const running: Running[] = []
  const open: ControlConnection[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ambit-control-main-'))
    config = join(folder, 'config')
    await mkdir(config)
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    signer = pair.privateKey
    const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256' }
    await writeFile(join(folder, 'keys.jwks'), JSON.stringify({ keys: [jwk] }))
    await writeFile(join(config, 'namespace.yaml'), namespace)
    await writeFile(
      join(config, 'pods.yaml'),
      pod('frontend', 'n1', '10.0.1.1') + '---' + pod('backend', 'n2', '10.0.2.1'),
    )
    port = await freePort()
  })

  afterEach(async () => {
    await Promise.all(open.splice(0).map((connection) => connection.close()))
    for (const { child } of running) if (child.exitCode === null) child.kill('SIGKILL')
    await Promise.all(running.splice(0).map(({ ended }) => ended))
    await rm(folder, { recursive: true, force: true })
  })

  const flags = (): string[] => [
    '--config-dir',
    config,
    '--listen',
    `127.0.0.1:${port}`,
    '--state-dir',
    join(folder, 'state'),
    '--token-keys',
    join(folder, 'keys.jwks'),
    '--admin',
    `unix:${join(folder, 'admin.sock')}`,
  ]

  function start(): Running {
    const program = new URL('../bin/ambit.ts', import.meta.url).pathname
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, 'control', ...flags()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const lines: Record<string, unknown>[] = []
    let rest = ''
    child.stdout.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      for (const line of parts) lines.push(JSON.parse(line) as Record<string, unknown>)
    })
    const one = { child, lines, ended: new Promise<number | null>((resolve) => child.on('exit', resolve)) }
    running.push(one)
    return one
  }

  async function connectAgent(node: string) {
    const claims = {
      'kubernetes.io': { namespace: 'ambit-system', serviceaccount: { name: 'ambit-agent' }, node: { name: node } },
    }
    const bearer = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
      .setIssuer('ambit-sandbox')
      .setAudience('istio-ca')
      .setSubject('system:serviceaccount:ambit-system:ambit-agent')
      .setExpirationTime('1h')
      .sign(signer)
    await writeFile(join(folder, 'token'), bearer)
    const state = new MeshState()
    const connection = await connectControl({
      address: `127.0.0.1:${port}`,
      rootCertFile: join(folder, 'state', 'root-cert.pem'),
      tokenFile: join(folder, 'token'),
      kinds: agentKinds,
      node: { type: 'agent', address: '', name: 'a', namespace: 'ambit-system', node },
      state,
      clock: systemClock,
      log: silentLog,
    })
    open.push(connection)
    return { connection, state }
  }

  it('brings an edit of a YAML file to an agent in less than 200 ms, and a bad edit not at all', async () => {
    const control = start()
    const { connection, state } = await connectAgent('n1')
    await connection.synced()
    expect(
      [...state.workloads()].map(({ name, node, tunnelProtocol }) => `${name} ${node} ${tunnelProtocol}`).sort(),
    ).toEqual(['backend n2 HBONE', 'frontend n1 HBONE'])
    const file = join(config, 'policy.yaml')
    const times: number[] = []
    for (const [mode, strict] of [
      ['STRICT', true],
      ['PERMISSIVE', false],
      ['STRICT', true],
    ] as const) {
      const begin = performance.now()
      await writeFile(file, policy(mode))
      await until(() => (state.workloadByAddress('10.0.2.1')?.authorizationPolicies.length ?? 0) > 0 === strict)
      times.push(performance.now() - begin)
    }
    expect(Math.min(...times)).toBeLessThan(200)
    expect(state.policy('istio-system/istio_converted_static_strict')?.action).toBe('DENY')
    await writeFile(file, policy('SOMETIMES'))
    await until(() =>
      control.lines.some(({ msg }) => String(msg).includes('policy.yaml') && String(msg).includes('SOMETIMES')),
    )
    expect(state.workloadByAddress('10.0.2.1')?.authorizationPolicies).toEqual([
      'istio-system/istio_converted_static_strict',
    ])
  })

  it('ends in order on SIGTERM with code 0, and comes back with the same root', async () => {
    const first = start()
    const { connection } = await connectAgent('n1')
    await connection.synced()
    const root = await readFile(join(folder, 'state', 'root-cert.pem'), 'utf8')
    expect((await stat(join(folder, 'state', 'ca-key.pem'))).mode & 0o777).toBe(0o600)
    first.child.kill('SIGTERM')
    expect(await first.ended).toBe(0)
    await until(() => !connection.status().connected)
    start()
    await until(() => connection.status().connected)
    expect(await readFile(join(folder, 'state', 'root-cert.pem'), 'utf8')).toBe(root)
    expect(connection.status().kinds.every(({ rejected }) => rejected.length === 0)).toBe(true)
  })

  it('says what keeps it from starting, in one line, and exits with 1', async () => {
    await writeFile(join(folder, 'keys.jwks'), 'no JSON')
    const broken = start()
    expect(await broken.ended).toBe(1)
    expect(broken.lines.at(-1)).toMatchObject({ level: 'fatal', code: 'TOKEN_KEYS_UNREADABLE' })
    await rm(config, { recursive: true })
    const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' })
    await writeFile(join(folder, 'keys.jwks'), JSON.stringify({ keys: [jwk] }))
    const missing = start()
    expect(await missing.ended).toBe(1)
    expect(missing.lines.at(-1)).toMatchObject({ level: 'fatal', code: 'CONFIG_UNREADABLE' })
    await mkdir(config)
    const squatter = createServer().listen(port, '127.0.0.1')
    const blocked = start()
    expect(await blocked.ended).toBe(1)
    expect(blocked.lines.at(-1)).toMatchObject({ level: 'fatal', code: 'CONTROL_LISTEN' })
    squatter.close()
  })

  it('refuses flags it does not know or that are missing', async () => {
    expect(await main(['--listen', 'nonsense'])).toBe(1)
    expect(await main(['--config-dir', config])).toBe(1)
  })
})

async function until(done: () => boolean, ms = 10_000): Promise<void> {
  const start = performance.now()
  while (!done()) {
    if (performance.now() - start > ms) throw new Error(`not within ${ms} ms: ${done.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address ? address.port : 0
}
