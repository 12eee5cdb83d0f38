// How a stream is counted, run by the kernel on facts made up here (BPF_PROG_TEST_RUN): one row a rule.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openObject, type BpfModule } from '../../native/bpf/index.ts'
import { decode, encode } from '../../native/bpf/codec.ts'
import { CountCase, decideSchema, EdgeCase } from '../../native/bpf/gen/test/decide.ts'
import { rttBoundsUs } from '../../agent/node/redirect/edges.ts'
import { emptyNote, kernelAddress, noteKinds } from '../../agent/node/redirect/notes.ts'

/** enum of linux/bpf.h */
const states = {
  ESTABLISHED: 1,
  SYN_SENT: 2,
  SYN_RECV: 3,
  FIN_WAIT1: 4,
  FIN_WAIT2: 5,
  TIME_WAIT: 6,
  CLOSE: 7,
  CLOSE_WAIT: 8,
  LAST_ACK: 9,
  LISTEN: 10,
  CLOSING: 11,
} as const

describe('the kernel counts', () => {
  let module: BpfModule<typeof decideSchema>
  beforeAll(async () => {
    module = await openObject(new URL('../../bpf/build/decide.bpf.o', import.meta.url).pathname, decideSchema).load()
  })
  afterAll(() => module.close())

  const quiet = { acked: 0n, received: 0n, unacked: 0, srtt_us: 0, retransmits: 0, fin_taken: 0, all_sent: 1 }
  function count(state: keyof typeof states, facts: Partial<typeof quiet> & { active: number }): CountCase {
    const input = { facts: { ...quiet, ...facts, state: states[state] }, sent: 0n, taken: 0n, bucket: 0, open: 9 }
    const { context } = module.programs.test_count.testRun({ context: encode(CountCase, input) })
    return decode(CountCase, context)
  }

  it.each([
    { what: 'a SYN under way', state: 'SYN_SENT', facts: { active: 1, unacked: 1 }, sent: 0n },
    { what: 'a SYN that was answered', state: 'ESTABLISHED', facts: { active: 1, acked: 1n }, sent: 0n },
    { what: 'the other end of that', state: 'ESTABLISHED', facts: { active: 0 }, sent: 0n },
    { what: 'bytes taken', state: 'ESTABLISHED', facts: { active: 1, acked: 101n }, sent: 100n },
    { what: 'bytes under way', state: 'ESTABLISHED', facts: { active: 1, acked: 51n, unacked: 50 }, sent: 100n },
    {
      what: 'the same of the other end',
      state: 'CLOSE_WAIT',
      facts: { active: 0, acked: 50n, unacked: 50 },
      sent: 100n,
    },
    { what: 'a FIN under way', state: 'FIN_WAIT1', facts: { active: 1, acked: 101n, unacked: 1 }, sent: 100n },
    { what: 'a FIN that waits', state: 'FIN_WAIT1', facts: { active: 1, acked: 101n, all_sent: 0 }, sent: 100n },
    { what: 'a FIN taken', state: 'FIN_WAIT2', facts: { active: 1, acked: 102n }, sent: 100n },
    { what: 'both FINs at once', state: 'CLOSING', facts: { active: 0, acked: 100n, unacked: 1 }, sent: 100n },
    { what: 'the last FIN', state: 'LAST_ACK', facts: { active: 0, acked: 101n }, sent: 100n },
    {
      what: 'more than four thousand million',
      state: 'LAST_ACK',
      facts: { active: 0, acked: 2n ** 40n },
      sent: 2n ** 40n - 1n,
    },
    { what: 'a socket that is reset at once', state: 'SYN_SENT', facts: { active: 1 }, sent: 0n },
  ] as const)('$what as $sent bytes sent', ({ state, facts, sent }) => {
    expect(count(state, facts).sent).toBe(sent)
  })

  it('the peer’s FIN as no byte', () => {
    expect(count('CLOSE_WAIT', { active: 1, received: 11n, fin_taken: 1 }).taken).toBe(10n)
    expect(count('ESTABLISHED', { active: 1, received: 10n }).taken).toBe(10n)
    expect(count('CLOSE_WAIT', { active: 1, received: 0n, fin_taken: 1 }).taken).toBe(0n)
  })

  it('as open what both sides have agreed to', () => {
    const open = (Object.keys(states) as (keyof typeof states)[]).filter((state) => count(state, { active: 1 }).open)
    expect(open).toEqual(['ESTABLISHED', 'FIN_WAIT1', 'FIN_WAIT2', 'TIME_WAIT', 'CLOSE_WAIT', 'LAST_ACK', 'CLOSING'])
  })

  it('round-trip times in the buckets that the agent reads', () => {
    const bucket = (us: number): number => count('ESTABLISHED', { active: 1, srtt_us: us }).bucket
    rttBoundsUs.forEach((bound, i) => {
      expect(bucket(bound)).toBe(i)
      expect(bucket(bound + 1)).toBe(i + 1)
    })
    expect(bucket(1)).toBe(0)
    expect(bucket(2 ** 32 - 1)).toBe(rttBoundsUs.length)
  })

  describe('under', () => {
    const POD = 7n
    const PEER = 8n
    const direct = {
      ...emptyNote,
      address: kernelAddress('10.96.0.7'),
      port: 80,
      chosen: kernelAddress('10.1.0.9'),
      chosen_port: 8080,
      client: PEER,
      kind: noteKinds.direct as number,
    }
    const none = kernelAddress('::')
    const zero = {
      cookie: 0n,
      peer: 0n,
      remote: none,
      service: none,
      port: 0,
      service_port: 0,
      direction: 0,
      security: 0,
    }

    function edge(note: Partial<typeof direct>, facts: { known?: number; served?: number; security?: number } = {}) {
      const { known = 1, served = 1, security = 1 } = facts
      const input = { note: { ...direct, ...note }, cookie: POD, security, known, served, key: zero }
      const { context } = module.programs.test_edge.testRun({ context: encode(EdgeCase, input) })
      return decode(EdgeCase, context).key
    }
    const own = { address: direct.chosen, port: direct.chosen_port }
    const service = { service: direct.address, service_port: 80 }
    const endpoint = { cookie: POD, remote: direct.chosen, security: 1 }

    it('endpoint and service, by the side that dialled', () => {
      expect(edge({})).toEqual({ ...zero, ...endpoint, ...service, port: 8080 })
      expect(edge(own)).toEqual({ ...zero, ...endpoint, port: 8080 })
    })

    it('a port of the endpoint only when it answered, unless a service names it', () => {
      expect(edge(own, { served: 0 })).toEqual({ ...zero, ...endpoint })
      expect(edge({}, { served: 0 })).toEqual({ ...zero, ...endpoint, ...service, port: 8080 })
    })

    it('the client’s namespace, by the side that answered', () => {
      const inbound = { ...zero, cookie: POD, peer: PEER, direction: 1, security: 1 }
      expect(edge({ kind: noteKinds.attested })).toEqual({ ...inbound, ...service, port: 8080 })
      expect(edge({ ...own, kind: noteKinds.attested }, { served: 0 })).toEqual(inbound)
    })

    it('nobody, where the endpoint is in no table', () => {
      expect(edge({ ...own, kind: noteKinds.passed }, { known: 0, security: 0 })).toEqual({ ...zero, cookie: POD })
    })

    it('the pod that a tunnel is for', () => {
      const note = { kind: noteKinds.tunnel, address: direct.chosen, port: 15_008 }
      expect(edge(note, { security: 2 })).toEqual({
        ...zero,
        cookie: PEER,
        remote: direct.chosen,
        port: 15_008,
        security: 2,
      })
    })
  })
})
