// The reconciler against a real kernel: each piece that keeps a pod in the mesh is taken away by force, is found missing at the
// next look, put right and counted; and where the way is broken the canary says so.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { codec, openObject, openPinnedLink, openPinnedMap } from '../../native/bpf/index.ts'
import { libbpfSampleSchema } from '../../native/bpf/gen/test/libbpf_sample.ts'
import { systemClock } from '../../agent/base/clock.ts'
import { silentLog, type Logger } from '../../agent/base/log.ts'
import { transport } from '../../agent/io/index.ts'
import type { ListenOptions, Listener } from '../../agent/io/connection.ts'
import { MeshState } from '../../agent/mesh/state.ts'
import { Flows } from '../../agent/node/observe/flow.ts'
import { Refusals } from '../../agent/node/observe/refusals.ts'
import { Canaries } from '../../agent/node/prove/canaries.ts'
import { proofMetrics } from '../../agent/node/prove/metrics.ts'
import { Prover } from '../../agent/node/prove/prover.ts'
import type { NodeRedirect, PodListeners } from '../../agent/node/redirect/contract.ts'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import { Lines, TestCertificates } from '../../agent/node/tunnel/world.ts'
import { Tunnels } from '../../agent/node/tunnel/tunnels.ts'
import { AccessLog } from '../../agent/telemetry/access-log.ts'
import { Metrics } from '../../agent/telemetry/exposition.ts'
import { TcpMetrics } from '../../agent/telemetry/istio.ts'
import { World, type Pod, type Sockets } from '../world/netns.ts'

const bpfObject = (name: string): string => new URL(`../../bpf/build/${name}.bpf.o`, import.meta.url).pathname

describe('a pod is proved to be protected', () => {
  let world: World
  let pod: Pod
  let app: Sockets
  let redirect: NodeRedirect
  let tunnels: Tunnels
  let listeners: PodListeners
  let prover: Prover
  let metrics: Metrics
  let lines: Lines
  const listening: Listener[] = []
  const logged: unknown[] = []

  beforeEach(async () => {
    logged.length = 0
    listening.length = 0
    world = new World()
    world.becomeAgent()
    pod = world.pod()
    app = world.sockets(pod)
    const { cgroupId } = await import('../../native/bpf/index.ts')
    const { cgroup, agentCgroup, bpffs } = world
    redirect = await openRedirect({ cgroup, agentCgroupIds: [cgroupId(agentCgroup)], pinRoot: bpffs })
    metrics = new Metrics('agent', 'test')
    lines = new Lines()
    const note = (fields: unknown): number => logged.push(fields)
    const log = Object.assign(Object.create(silentLog) as Logger, { warn: note, error: note })
    const canaries = new Canaries()
    const watched = {
      connect: transport.connect.bind(transport),
      async listen(options: ListenOptions): Promise<Listener> {
        const listener = await transport.listen(options)
        listening.push(listener)
        return listener
      },
    }
    tunnels = new Tunnels({
      node: 'one',
      transport: watched,
      redirect,
      certificates: new TestCertificates(),
      view: () => new MeshState(),
      flows: new Flows(new TcpMetrics(metrics), new Refusals(metrics), lines as unknown as AccessLog, systemClock),
      clock: systemClock,
      log,
      canaries,
      waitMs: 200,
    })
    prover = new Prover({
      redirect,
      transport,
      canaries,
      relisten: (uid, listeners) => tunnels.relisten(uid, listeners),
      clock: systemClock,
      log,
      // Looks happen when the test says so.
      intervalMs: 3_600_000,
      deadlineMs: 2_000,
    })
    proofMetrics(metrics, prover, systemClock)
    const registered = { uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6], namespace: 'shop', name: 'web' }
    listeners = await redirect.enroll(registered)
    await tunnels.addPod(registered, listeners)
    prover.add(registered)
    await expect.poll(() => prover.status()[0]?.protected, { timeout: 5_000 }).toBe(true)
  })

  afterEach(async () => {
    prover.close()
    await tunnels.drain(0)
    await redirect.uninstall().catch(() => undefined)
    await world.close()
  })

  const look = async (): Promise<string> => {
    prover.checkNode()
    const proof = await prover.prove(pod.name)
    return proof?.protected === true ? 'protected' : (proof?.problem ?? 'gone')
  }
  const repairs = (): Record<string, number> => Object.fromEntries(prover.repairs)
  const map = <K, V>(name: string, key: codec.Codec<K>, value: codec.Codec<V>) =>
    openPinnedMap(`${world.pinRoot}/${name}`, key, value)

  it('while all is well: nothing is repaired, nothing logged, nothing left, in every family', async () => {
    const before = redirect.counters()
    // Two directions, two families, twice.
    for (let round = 0; round < 8; round++) expect(await look()).toBe('protected')
    const after = redirect.counters()
    for (const counter of ['canary', 'captured', 'tunnelled']) expect(after[counter]! - before[counter]!).toBe(4)
    expect(after['redirected']).toBe(before['redirected'])
    expect(repairs()).toEqual({})
    expect(logged).toEqual([])
    expect(lines.entries).toEqual([])
    expect(tunnels.connections).toBe(0)
    const ss = [`--net=${pod.netns}`, 'ss', '-Htan', 'state', 'connected']
    await expect.poll(() => execFileSync('nsenter', ss, { encoding: 'utf8' })).toBe('')
    const text = await metrics.text()
    expect(text).toContain('ambit_pod_protected{namespace="shop",pod="web"} 1')
    expect(text).toMatch(/ambit_pod_proof_age_seconds\{namespace="shop",pod="web"\} 0\.\d+/)
    expect(text).not.toContain('ambit_connections_refused_total{')
  })

  it.each(['ambit_connect4', 'ambit_connect6', 'ambit_sockops', 'ambit_peername4', 'ambit_peername6'])(
    'after %s was detached from the node',
    async (name) => {
      const pin = `${world.pinRoot}/links/${name}`
      const link = openPinnedLink(pin)
      link.detach()
      link.close()
      expect(await look()).toBe('protected')
      expect(repairs()).toEqual({ node_link: 1 })
      const again = openPinnedLink(pin)
      expect(again.info().target).not.toBe(0n)
      again.close()
      expect(await look()).toBe('protected')
      expect(repairs()).toEqual({ node_link: 1 })
      expect(logged).toHaveLength(1)
    },
  )

  it('after its sk_lookup was detached', async () => {
    const link = openPinnedLink(`${world.pinRoot}/pods/${podPin()}`)
    link.detach()
    link.close()
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ pod_link: 1 })
    expect(await look()).toBe('protected')
    await app.must('connect', { to: pod.v4, port: 15_008 })
  })

  it('after the guard of its interface was detached', async () => {
    const [name] = readdirSync(`${world.pinRoot}/guards`)
    const link = openPinnedLink(`${world.pinRoot}/guards/${name}`)
    link.detach()
    link.close()
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ guard: 1 })
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ guard: 1 })
  })

  it('after it got two more interfaces, which nobody guarded', async () => {
    execFileSync('ip', ['-n', pod.name, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth2'])
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ guard: 2 })
  })

  it('after somebody put another program into a link', async () => {
    const sample = await openObject(bpfObject('libbpf_sample'), libbpfSampleSchema).load()
    const link = openPinnedLink(`${world.pinRoot}/links/ambit_connect4`)
    link.update(sample.programs.refuse_all4)
    link.close()
    expect(await app.call('connect', { to: '10.96.0.7', port: 80 })).toEqual({ error: 'EPERM' })
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ node_link: 1 })
    await app.must('connect', { to: '10.96.0.7', port: 80 })
    sample.close()
  })

  it('after pins were removed', async () => {
    const gone = [
      `${world.pinRoot}/links/ambit_sockops`,
      `${world.pinRoot}/ambit_pods`,
      `${world.pinRoot}/pods/${podPin()}`,
    ]
    for (const path of gone) rmSync(path)
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ pin: 3 })
    for (const path of gone) expect(existsSync(path), path).toBe(true)
  })

  it('after its entry, its addresses, its listeners’ entries and the agent’s were deleted', async () => {
    for (const [name, keyBytes, valueBytes] of [
      ['ambit_pods', 8, 16],
      ['ambit_addresses', 24, 4],
      ['ambit_agents', 8, 4],
    ] as const) {
      const entries = map(name, codec.bytes(keyBytes), codec.bytes(valueBytes))
      for (const key of [...entries.keys()]) entries.delete(key)
      entries.close()
    }
    const listeners = map('ambit_listeners', codec.bytes(16), codec.u64)
    for (const key of [...listeners.keys()]) listeners.delete(key)
    listeners.close()
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ agent_entry: 1, listener_entry: 3, pod_entry: 1, address_entry: 1 })
    expect(await look()).toBe('protected')
  })

  it('after its entry was changed to let everything pass', async () => {
    redirect.setPlaintext(pod.name, 'refuse')
    const pods = map('ambit_pods', codec.u64, codec.bytes(16))
    for (const [cookie, value] of [...pods.entries()]) {
      value[6] = 1
      value[7] = 0
      pods.set(cookie, value)
    }
    pods.close()
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ pod_entry: 1 })
    const outside = world.sockets(world.outside, world.outside.cgroup)
    const refused = redirect.counters()['dropped.plaintext_refused']!
    expect(await outside.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect(redirect.counters()['dropped.plaintext_refused']! - refused).toBe(1)
  })

  it('after its listeners were closed', async () => {
    shutdownFromOutside(Object.values(listeners) as number[])
    expect(await app.call('connect', { to: '10.96.0.7', port: 80 })).toEqual({ error: 'ECONNREFUSED' })
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ listener: 3 })
    expect(await look()).toBe('protected')
  })

  it('after this agent itself stopped accepting', async () => {
    for (const listener of listening) listener.pause()
    expect(await look()).toBe('protected')
    expect(repairs()).toEqual({ accept: 1 })
  })

  it('not while something else refuses what it dials, which is said once, and not repaired', async () => {
    const sample = await openObject(bpfObject('libbpf_sample'), libbpfSampleSchema).load()
    // In a cgroup below it comes first, and nothing of ours is changed.
    const link = sample.programs.refuse_all4.attachCgroup(world.agentCgroup)
    for (let round = 0; round < 4; round++) await look()
    // IPv6 goes on working; the pod is protected when both do.
    expect(prover.status()[0]).toMatchObject({
      protected: false,
      problem: expect.stringMatching(
        /^the outbound canary over IPv4 failed: .*not permitted.*; the inbound canary over IPv4 failed: /,
      ) as string,
    })
    expect(repairs()).toEqual({})
    expect(prover.failures.outbound).toBeGreaterThan(0)
    expect(logged).toHaveLength(1)
    expect(await metrics.text()).toContain('ambit_pod_protected{namespace="shop",pod="web"} 0')
    link.close()
    sample.close()
    expect(await look()).toBe('protected')
  })

  it('no longer by an agent whose place a newer one has taken', async () => {
    const { cgroupId } = await import('../../native/bpf/index.ts')
    const { cgroup, agentCgroup, bpffs, pinRoot } = world
    const newer = await openRedirect({ cgroup, agentCgroupIds: [cgroupId(agentCgroup)], pinRoot: bpffs })
    const pin = openPinnedLink(`${pinRoot}/links/ambit_connect4`)
    const program = pin.info().programId
    await look()
    expect(prover.succeeded).toBe(true)
    expect(pin.info().programId).toBe(program)
    pin.close()
    newer.close()
  })

  /** shutdown(2) by another process: the listening socket is closed, its descriptors stay. */
  function shutdownFromOutside(fds: readonly number[]): void {
    const script = [
      'import ctypes, os, socket, sys',
      'pidfd = os.pidfd_open(int(sys.argv[1]))',
      'for fd in sys.argv[2:]:',
      '    copy = ctypes.CDLL(None).syscall(438, pidfd, int(fd), 0) # pidfd_getfd',
      '    socket.socket(fileno=copy).shutdown(socket.SHUT_RDWR)',
    ].join('\n')
    execFileSync('python3', ['-c', script, String(process.pid), ...fds.map(String)])
  }

  function podPin(): string {
    const [name] = execFileSync('ls', [`${world.pinRoot}/pods`], { encoding: 'utf8' }).split('\n')
    return name!
  }
})
