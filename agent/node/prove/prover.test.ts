// When pods are looked at and what is said of them. The kernel's part is played by an object that fails on demand; the real one
// has its own test (test/kernel/prove.test.ts).
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog, type Logger } from '../../base/log.ts'
import type { Connection, ConnectOptions } from '../../io/connection.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { Checkup, KubeletState, Repair } from '../redirect/checks.ts'
import { Canaries } from './canaries.ts'
import { Prover } from './prover.ts'

const listeners = { outbound: 1, hbone: 2, plaintext: 3 }

class Kernel {
  readonly looks: string[] = []
  kubelet: KubeletState = { state: 'missing', cgroup: '', detail: 'There is none.' }
  node: readonly Repair[] | 'succeeded' = []
  pod: readonly Repair[] | Error = []
  checkNode(): readonly Repair[] | 'succeeded' {
    this.looks.push('node')
    return this.node
  }
  async checkPod(uid: string): Promise<Checkup> {
    this.looks.push(uid)
    if (this.pod instanceof Error) throw this.pod
    return { repairs: this.pod, listeners }
  }
  canary(): number {
    return 10
  }
  socket(): number {
    return 11
  }
}

describe('the prover', () => {
  const canaries = new Canaries()
  let clock: ManualClock
  let kernel: Kernel
  let prover: Prover
  let logged: string[]
  let relistened: number
  /** What canaries do: arrive, or wait for ever. */
  let open: 'lands' | 'vanishes'
  let relistenOpens: boolean
  /** Another agent accepts on the same listeners. */
  let shared: boolean

  beforeEach(() => {
    clock = new ManualClock(1_000_000)
    kernel = new Kernel()
    logged = []
    relistened = 0
    open = 'lands'
    relistenOpens = false
    shared = false
    const say = (first: unknown, text?: string): number => logged.push(text ?? String(first))
    prover = new Prover({
      redirect: kernel,
      transport: { connect: (options) => connect(options) },
      canaries,
      relisten: async () => {
        relistened++
        if (relistenOpens) open = 'lands'
      },
      clock,
      log: Object.assign(Object.create(silentLog) as Logger, { info: say, warn: say, error: say }),
      intervalMs: 5_000,
      deadlineMs: 2_000,
      random: () => 0.5,
      shared: () => shared,
    })
  })
  afterEach(() => prover.close())

  /** The other end, as the tunnel half recognises a canary. */
  function connect({ handler, host, port }: ConnectOptions): Connection {
    const connection = {
      abort: () => undefined,
      write: (bytes: Uint8Array) => {
        const name = /[0-9a-f]{48}\.canary\.invalid/.exec(Buffer.from(bytes).toString('latin1'))?.[0]
        canaries.landedInbound('web', name ?? '')
      },
    } as unknown as Connection
    if (open === 'lands') {
      queueMicrotask(() => {
        handler.onOpen(connection, undefined as never)
        canaries.landedOutbound('web', { address: host!, port: port! })
      })
    }
    return connection
  }

  const pod: RegisteredPod = { uid: 'web', namespace: 'shop', name: 'web-1', netns: '', addresses: ['10.1.0.5'] }
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await Promise.resolve()
  }
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms)
    await settle()
  }
  const state = () => prover.status()[0]

  it('proves a pod at once, then at a time of its own, then every interval', async () => {
    prover.add(pod)
    expect(state()).toMatchObject({ protected: false, provedAt: undefined, problem: 'not proved yet' })
    await pass(0)
    expect(state()).toMatchObject({ protected: true, provedAt: 1_000_000, problem: '' })
    await pass(2_499)
    expect(kernel.looks).toEqual(['web'])
    await pass(1)
    expect(kernel.looks).toEqual(['web', 'web'])
    await pass(5_000)
    expect(kernel.looks).toEqual(['web', 'web', 'web'])
    expect(state()?.provedAt).toBe(1_007_500)
    expect(logged).toEqual([])
  })

  it('looks at the node every interval', async () => {
    prover.start()
    await pass(15_000)
    expect(kernel.looks).toEqual(['node', 'node', 'node'])
  })

  it('says whose probes pass, when that changes', async () => {
    prover.start()
    await pass(10_000)
    kernel.kubelet = { state: 'exempt', cgroup: '/kubelet.service', detail: 'Process 7.' }
    await pass(10_000)
    kernel.kubelet = { state: 'shared', cgroup: '/k3s.service', detail: 'Process 7 shares it with containerd (8).' }
    await pass(10_000)
    expect(logged).toEqual([
      'no kubelet is known, no probe passes',
      "the kubelet's probes pass",
      "the kubelet cannot be told apart: policy judges the node's plaintext",
    ])
  })

  it('counts every repair, and logs those that were not there at the last look', async () => {
    prover.add(pod)
    kernel.pod = ['pod_link', 'pin']
    await pass(0)
    await prover.prove('web')
    expect(Object.fromEntries(prover.repairs)).toEqual({ pod_link: 2, pin: 2 })
    expect(logged).toEqual(['something in the kernel was put right', 'something in the kernel was put right'])
    expect(state()).toMatchObject({ protected: true, repairs: 4 })
    kernel.pod = []
    await prover.prove('web')
    kernel.pod = ['pin']
    await prover.prove('web')
    expect(logged).toHaveLength(3)
  })

  it('accepts anew on a listener that was made anew', async () => {
    kernel.pod = ['listener']
    prover.add(pod)
    await pass(0)
    expect(relistened).toBe(1)
    expect(state()?.protected).toBe(true)
  })

  it('accepts anew where nothing arrives though all looks well, and says whether that helped', async () => {
    open = 'vanishes'
    relistenOpens = true
    prover.add(pod)
    await pass(0)
    expect(relistened).toBe(0)
    await pass(2_000)
    expect(relistened).toBe(1)
    expect(Object.fromEntries(prover.repairs)).toEqual({ accept: 1 })
    expect(prover.failures).toEqual({ outbound: 1, inbound: 1 })
    expect(state()).toMatchObject({ protected: true, problem: '' })
  })

  it('sends one canary a look, each way in turn, and all where something was repaired', async () => {
    const sent: string[] = []
    const { canary, socket } = kernel
    kernel.canary = () => (sent.push('out'), canary())
    kernel.socket = () => (sent.push('in'), socket())
    prover.add(pod)
    await pass(0)
    expect(sent.splice(0)).toEqual(['out', 'in'])
    for (let look = 0; look < 3; look++) await prover.prove('web')
    expect(sent.splice(0)).toEqual(['in', 'out', 'in'])
    kernel.pod = ['pod_entry']
    await prover.prove('web')
    expect(sent).toEqual(['out', 'in'])
  })

  it('sends none while another agent may accept it, and looks at the kernel alone', async () => {
    shared = true
    open = 'vanishes'
    kernel.canary = kernel.socket = () => {
      throw new Error('a canary was sent')
    }
    prover.add(pod)
    await pass(0)
    expect(state()).toMatchObject({ protected: true, problem: '', provedAt: 1_000_000 })
    shared = false
    await pass(2_500)
    expect(state()?.problem).toContain('a canary was sent')
  })

  it('says once that a pod is not proved, and once that it is again', async () => {
    prover.add(pod)
    await pass(0)
    open = 'vanishes'
    for (let round = 0; round < 3; round++) {
      const looked = prover.prove('web')
      await settle()
      await pass(2_000)
      await pass(2_000)
      await looked
    }
    expect(state()).toMatchObject({
      protected: false,
      provedAt: 1_000_000,
      problem:
        'the outbound canary over IPv4 failed: nothing arrived within 2000 ms; ' +
        'the inbound canary over IPv4 failed: nothing arrived within 2000 ms',
    })
    expect(logged).toEqual(['the pod is not proved to be protected'])
    open = 'lands'
    await prover.prove('web')
    expect(state()?.protected).toBe(true)
    expect(logged).toEqual(['the pod is not proved to be protected', 'the pod is protected again'])
  })

  it('says what could not be looked at, and looks again', async () => {
    kernel.pod = new Error('the kernel has no memory')
    prover.add(pod)
    await pass(0)
    expect(state()).toMatchObject({ protected: false, problem: 'the kernel has no memory' })
    kernel.pod = []
    await pass(2_500)
    expect(state()?.protected).toBe(true)
  })

  it('stops for good once a newer agent has taken over, without a word about the pods', async () => {
    prover.start()
    prover.add(pod)
    await pass(0)
    open = 'vanishes'
    kernel.node = 'succeeded'
    const looked = prover.prove('web')
    await settle()
    await pass(2_000)
    await pass(2_000)
    await looked
    expect(prover.succeeded).toBe(true)
    expect(prover.status()).toEqual([])
    expect(logged).toEqual([
      'no kubelet is known, no probe passes',
      'a newer agent has taken this node over; this one proves nothing any more',
    ])
    const looks = kernel.looks.length
    await pass(60_000)
    expect(kernel.looks).toHaveLength(looks)
  })

  it('forgets a pod that leaves, also while it is looked at', async () => {
    prover.add(pod)
    await pass(0)
    const looked = prover.prove('web')
    prover.remove('web')
    await looked
    expect(prover.status()).toEqual([])
    const looks = kernel.looks.length
    await pass(60_000)
    expect(kernel.looks).toHaveLength(looks)
  })
})
