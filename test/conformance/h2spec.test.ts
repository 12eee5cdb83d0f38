// h2spec, every case and strict, against each place where HTTP/2 is spoken to a peer: the codec alone, a service behind a
// waypoint, and the HBONE ports of waypoint and agent. It can bring neither a client certificate nor a CONNECT: a relay does.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http2'
import type { Server as NetServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../agent/base/clock.ts'
import { silentLog } from '../../agent/base/log.ts'
import type { KeyPair } from '../../agent/io/connection.ts'
import { Cluster, root as testRoot } from '../../agent/node/tunnel/world.ts'
import { CertificateManager } from '../../agent/pki/manager.ts'
import { listenOn } from '../../agent/waypoint/testing-apps.ts'
import { identity, VIP, World } from '../../agent/waypoint/testing.ts'
import { startH2specServer } from './h2spec-server.ts'
import { buildH2spec, CASES, judge, type Verdict } from './h2spec.ts'

const relayProgram = join(import.meta.dirname, 'hbone-relay.ts')
const folder = mkdtempSync(join(tmpdir(), 'ambit-h2spec-'))
const relays: ChildProcess[] = []
const stops: (() => unknown)[] = []

interface RelayOptions {
  readonly to: string
  readonly source: string
  readonly pair: KeyPair
  readonly trust: string
  readonly connect?: string
}

/** Starts the relay and tells its port. */
async function relay(name: string, options: RelayOptions): Promise<number> {
  const file = (kind: string, text: string): string => {
    const path = join(folder, `${name}-${kind}.pem`)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  const { to, source, pair, trust, connect } = options
  const files = ['--certificate', file('certificate', pair.certificate), '--key', file('key', pair.key)]
  const more = ['--trust', file('trust', trust), ...(connect === undefined ? [] : ['--connect', connect])]
  const child = spawn(process.execPath, [relayProgram, '--to', to, '--source', source, ...files, ...more], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  relays.push(child)
  return await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the relay ended with ${code}`)))
    child.stdout.once('data', (line: Buffer) => resolve(Number(line.toString())))
  })
}

async function startCodec(): Promise<number> {
  const listener = await startH2specServer()
  stops.push(() => listener.stop())
  return listener.address.port
}

/** A waypoint with a service behind it: the port inside a tunnel, and the HBONE port itself. */
async function startWaypoint(): Promise<[inside: number, port: number]> {
  const world = await World.open()
  stops.push(() => world.close())
  world.setService('http2')
  const server = createServer((request, response) => {
    request.on('error', () => undefined)
    request.resume().on('end', () => response.end('judged by h2spec\n'))
  })
  await world.endpoint(10, await listenOn(server as unknown as NetServer, world.address(10)))
  world.onClose(() => void server.close())
  const certificates = new CertificateManager({
    sign: (request) => world.authority.issue(request.csr, request.identity, request.validitySeconds),
    clock: systemClock,
    log: silentLog,
    roots: world.authority.trustBundle,
  })
  stops.push(() => certificates.close())
  const options: RelayOptions = {
    to: `${world.address(2)}:15008`,
    source: world.address(1),
    pair: await certificates.keyPair(identity('client')),
    trust: world.authority.trustBundle,
  }
  return [await relay('inside', { ...options, connect: `${VIP}:80` }), await relay('waypoint', options)]
}

async function startAgent(): Promise<number> {
  const cluster = new Cluster(78)
  stops.push(() => cluster.close())
  const pod = await cluster.pod(cluster.node('node'), 'server')
  return await relay('agent', {
    to: `${pod.address}:15008`,
    source: '127.78.0.201',
    pair: testRoot.issue('spiffe://cluster.local/ns/default/sa/client'),
    trust: testRoot.certificate,
  })
}

describe('h2spec', () => {
  const verdicts = new Map<string, Verdict>()

  beforeAll(async () => {
    buildH2spec()
    const [inside, waypoint] = await startWaypoint()
    const ports = { codec: await startCodec(), inside, waypoint, agent: await startAgent() }
    // Most of a run is waiting for what must not come: together they take as long as one.
    await Promise.all(Object.entries(ports).map(async ([name, port]) => verdicts.set(name, await judge(name, port))))
  }, 360_000)

  afterAll(async () => {
    for (const child of relays) child.stdin?.end()
    for (const stop of stops.reverse()) await stop()
    rmSync(folder, { recursive: true, force: true })
  })

  it.each([
    ['the codec', 'codec'],
    ['a service behind a waypoint, inside HBONE', 'inside'],
    ["the waypoint's HBONE port", 'waypoint'],
    ["a pod's HBONE port", 'agent'],
  ])('finds nothing wrong with %s', (_what, name) => {
    expect(verdicts.get(name)).toEqual({ cases: CASES, failed: [], skipped: [] })
  })
})
