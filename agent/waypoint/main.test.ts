// The program as it is started: flags, control over gRPC, certificates from the CA, admin server, drain by signal, last good state.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { caServiceDefinition, caServiceImplementation } from '../wire/ca-service.ts'
import { addressCodec } from '../wire/codec/address.ts'
import { policyCodec } from '../wire/codec/policy.ts'
import { settingsCodec } from '../wire/codec/settings.ts'
import { waypointKinds } from '../wire/contract.ts'
import { startControlServer, type ControlServer } from '../wire/control-server.ts'
import { encodeResource, type EncodedResource } from '../wire/encoded.ts'
import { ResourceStore } from '../wire/resource-store.ts'
import { XdsServer } from '../wire/xds-server.ts'
import { waypointCommand } from './options.ts'
import { app, call, echo, listenOn } from './testing-apps.ts'
import { identity, World } from './testing.ts'

interface Line {
  level: string
  msg: string
  restored?: boolean
}

/** A running `ambit waypoint`. */
class Program {
  readonly lines: Line[] = []
  readonly exited: Promise<number | null>
  readonly child: ChildProcess

  constructor(args: readonly string[]) {
    const main = new URL('./main.ts', import.meta.url).href
    const code = `import(${JSON.stringify(main)}).then(async ({ main }) => { process.exitCode = await main(process.argv.slice(1)); process.exit() })`
    this.child = spawn(process.execPath, ['-e', code, '--', ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    let rest = ''
    this.child.stdout?.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      for (const part of parts) if (part !== '') this.lines.push(JSON.parse(part) as Line)
    })
    this.exited = new Promise((resolve) => this.child.once('exit', resolve))
  }

  said(text: string): Line | undefined {
    return this.lines.find((line) => line.msg === text)
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function get(
  target: { port: number } | { socketPath: string },
  path: string,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve) => {
    httpRequest({ host: '127.0.0.1', ...target, path, agent: false }, (response) => {
      let body = ''
      response.on('data', (chunk: Buffer) => (body += chunk.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
      .on('error', () => resolve({ status: 0, body: '' }))
      .end()
  })
}

let world: World
let control: ControlServer
let store: ResourceStore
const running: Program[] = []

function resources(): EncodedResource[] {
  const { state } = world
  return [
    encodeResource('MeshSettings', settingsCodec.nameOf(state.settings), settingsCodec.encode(state.settings)),
    ...[...state.services()].map((service) => {
      const value = { type: 'service', service } as const
      return encodeResource('Address', addressCodec.nameOf(value), addressCodec.encode(value))
    }),
    ...[...state.workloads()].map((workload) => {
      const value = { type: 'workload', workload } as const
      return encodeResource('Address', addressCodec.nameOf(value), addressCodec.encode(value))
    }),
    ...[...state.policies()].map((policy) =>
      encodeResource('Policy', policyCodec.nameOf(policy), policyCodec.encode(policy)),
    ),
  ]
}

async function startControl(port = 0): Promise<ControlServer> {
  const xds = new XdsServer<string>({
    store,
    clock: systemClock,
    log: silentLog,
    authenticate: (credentials) => Promise.resolve(credentials.token),
    admit: () => ({ kinds: waypointKinds, version: () => 0, includes: () => true }),
  })
  return await startControlServer({
    listen: `127.0.0.1:${port}`,
    certificate: await world.authority.serverCertificate(['control.ambit-system.svc', '127.0.0.1'], 3_600),
    services: [
      { definition: xds.definition, implementation: xds.implementation },
      {
        definition: caServiceDefinition,
        implementation: caServiceImplementation<string>({
          log: silentLog,
          authenticate: (credentials) => Promise.resolve(credentials.token),
          issue: (_caller, request) => world.authority.issue(request.csr, identity('waypoint'), 3_600),
        }),
      },
    ],
  })
}

beforeEach(async () => {
  world = await World.open(true)
  world.setService()
  store = new ResourceStore()
  control = await startControl()
  writeFileSync(join(world.folder, 'token'), 'the token')
  mkdirSync(join(world.folder, 'state'), { recursive: true })
})

afterEach(async () => {
  for (const program of running.splice(0)) {
    program.child.kill('SIGKILL')
    await program.exited
  }
  await control.close(100)
  await world.close()
})

async function start(metrics: number, ready: number, more: readonly string[] = []): Promise<Program> {
  const program = new Program([
    '--name',
    'waypoint',
    '--namespace',
    'shop',
    '--service-account',
    'waypoint',
    '--control',
    `127.0.0.1:${control.port}`,
    '--root-cert',
    join(world.folder, 'root-cert.pem'),
    '--token-file',
    join(world.folder, 'token'),
    '--listen',
    `${world.address(2)}:15008`,
    '--metrics',
    `127.0.0.1:${metrics}`,
    '--ready',
    `127.0.0.1:${ready}`,
    '--admin',
    `unix:${join(world.folder, 'admin')}`,
    '--state-dir',
    join(world.folder, 'state'),
    '--drain-seconds',
    '5',
    ...more,
  ])
  running.push(program)
  return program
}

async function readyStatus(port: number, wanted: number): Promise<void> {
  while ((await get({ port }, '/healthz/ready')).status !== wanted)
    await new Promise((resolve) => setTimeout(resolve, 30))
}

describe('ambit waypoint', () => {
  it('serves what control says, tells what it does, takes changes, and ends by SIGTERM', async () => {
    const server = app(echo('app'))
    await world.endpoint(10, await listenOn(server, world.address(10)))
    world.onClose(() => void server.close())
    store.update({ set: resources(), remove: [] })
    const [metrics, ready] = [await freePort(), await freePort()]
    const program = await start(metrics, ready)
    await readyStatus(ready, 200)
    const port = await world.dial()
    expect(await call(port, { path: '/x' })).toMatchObject({ status: 200, headers: { 'x-app': 'app' } })
    expect((await get({ port: metrics }, '/metrics')).body).toMatch(/istio_requests_total\{[^}]*reporter="waypoint"/)
    const dump = (await get({ socketPath: join(world.folder, 'admin') }, '/config_dump')).body
    expect(dump).toContain('api.shop.svc.cluster.local')
    expect(dump).not.toContain('PRIVATE')
    world.setPolicy({ rules: [] })
    store.update({ set: resources(), remove: [] })
    while ((await call(port)).status !== 403) await new Promise((resolve) => setTimeout(resolve, 20))
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    expect(program.lines.some((line) => (line as unknown as { type?: string }).type === 'access')).toBe(true)
    server.closeAllConnections()
  })

  it.each([[[]], [['--workers', '2']]])(
    'serves on for a while after SIGTERM, not ready, since not everybody has heard of it yet (%j)',
    async (more) => {
      const server = app(echo('app'))
      await world.endpoint(10, await listenOn(server, world.address(10)))
      world.onClose(() => void server.close())
      store.update({ set: resources(), remove: [] })
      const [metrics, ready] = [await freePort(), await freePort()]
      const program = await start(metrics, ready, ['--drain-delay-seconds', '2', ...more])
      await readyStatus(ready, 200)
      const old = await world.dial()
      expect(await call(old)).toMatchObject({ status: 200 })
      const began = performance.now()
      program.child.kill('SIGTERM')
      await readyStatus(ready, 503)
      // Over the tunnel that was there, and over a new one.
      for (const port of [old, await world.dial()]) expect(await call(port)).toMatchObject({ status: 200 })
      expect(performance.now() - began).toBeLessThan(2_000)
      expect(await program.exited).toBe(0)
      expect(performance.now() - began).toBeGreaterThan(2_000)
      server.closeAllConnections()
    },
  )

  it('starts with the last good state while control is away, and without one waits', async () => {
    store.update({ set: resources(), remove: [] })
    const first = await start(await freePort(), await freePort())
    await world.until(() => first.said('waypoint started') !== undefined)
    expect(first.said('waypoint started')?.restored).toBe(false)
    first.child.kill('SIGTERM')
    expect(await first.exited).toBe(0)
    const { port } = control
    await control.close(10)
    const ready = await freePort()
    const second = await start(await freePort(), ready)
    await world.until(() => second.said('waypoint started') !== undefined)
    expect(second.said('waypoint started')?.restored).toBe(true)
    // Nobody can be served without a certificate: it says so, and goes on as soon as control is back.
    expect((await get({ port: ready }, '/healthz/ready')).body).toContain('certificate')
    control = await startControl(port)
    await readyStatus(ready, 200)
  })

  it('names a port that is in use and ends', async () => {
    store.update({ set: resources(), remove: [] })
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(15008, world.address(2), resolve))
    world.onClose(() => void taken.close())
    const program = await start(await freePort(), await freePort())
    expect(await program.exited).toBe(1)
    expect(program.lines.at(-1)).toMatchObject({ level: 'fatal', code: 'IO_ADDRESS_IN_USE' })
  })

  it('explains its flags with an example', () => {
    const help = waypointCommand(() => Promise.resolve()).helpInformation()
    for (const flag of ['--name', '--control', '--token-file', '--state-dir', '--drain-seconds'])
      expect(help).toContain(flag)
  })
})
