// What the guard reads of a packet and what it decides, run by the kernel on facts and frames made up here: one row a rule, and
// any packet that a receiver would take for TCP.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openObject, type BpfModule } from '../../native/bpf/index.ts'
import { decode, encode } from '../../native/bpf/codec.ts'
import { DatagramCase, decideGuardSchema, GuardCase, type Packet } from '../../native/bpf/gen/test/decide_guard.ts'
import { formatIp } from '../../agent/base/ip.ts'
import { kernelAddress, noteKinds } from '../../agent/node/redirect/notes.ts'

const objectFile = new URL('../../bpf/build/decide_guard.bpf.o', import.meta.url).pathname
const [FIN, SYN, RST, ACK] = [1, 2, 4, 16]
/** enum packet_kind, enum guard_owner */
const kinds = { other: 0, tcp: 1, fragment: 2, unreadable: 3, udp: 4 }
const owners = { none: 0, tcp: 1, mini: 2, kernel: 3, other: 4 }
const nowhere = {
  address: kernelAddress('::'),
  chosen: kernelAddress('::'),
  client: 0n,
  port: 0,
  kind: 0,
  chosen_port: 0,
}

let module: BpfModule<typeof decideGuardSchema>
let verdicts: Record<number, string>

beforeAll(async () => {
  const object = openObject(objectFile, decideGuardSchema)
  for (const type of object.btf.types) {
    if (type.kind !== 'enum' || type.name !== 'guard_verdict') continue
    verdicts = Object.fromEntries(type.values.map((entry) => [Number(entry.value), entry.name]))
  }
  module = await object.load()
})
afterAll(() => module.close())

describe('the guard of a pod’s exits', () => {
  const dialled = { address: '10.1.0.9', port: 80 }
  const syn = {
    source: '10.1.0.5',
    destination: dialled.address,
    destination_port: dialled.port,
    kind: kinds.tcp,
    flags: SYN,
    payload: 0,
  }
  const note = (kind: number, change: { to?: string; port?: number; client?: bigint } = {}) => ({
    ...nowhere,
    kind,
    chosen: kernelAddress(change.to ?? dialled.address),
    chosen_port: change.port ?? dialled.port,
    client: change.client ?? 7n,
  })
  const base = { owner: owners.tcp, is_agent: 0, is_forwarded: 0, source_is_own: 1, pod_state: 2, note: nowhere }
  type Change = Partial<Omit<typeof base, 'note'>> & { note?: typeof nowhere; packet?: Partial<typeof syn> }

  function decide(change: Change): string | undefined {
    const { source, destination, ...packet } = { ...syn, ...change.packet }
    const facts = {
      ...base,
      ...change,
      cookie: 7n,
      packet: { ...packet, source: kernelAddress(source), destination: kernelAddress(destination) },
    }
    const input = encode(GuardCase, { facts, verdict: 99 })
    return verdicts[decode(GuardCase, module.programs.test_guard.testRun({ context: input }).context).verdict]
  }

  const { direct, passed, onBehalf } = noteKinds
  const data = { flags: ACK, payload: 1 }
  const kernels = { owner: owners.kernel }
  const unowned = { owner: owners.none }
  const handmade = { owner: owners.other }
  it.each<{ what: string; change: Change; verdict: string }>([
    { what: 'the agent’s opening', change: { is_agent: 1 }, verdict: 'GUARD_PASS' },
    { what: 'one nobody decided about', change: {}, verdict: 'GUARD_DROP_SYN' },
    {
      what: 'one that was captured and yet is here',
      change: { note: note(noteKinds.dialled) },
      verdict: 'GUARD_DROP_SYN',
    },
    {
      what: 'one with an agent’s note but not an agent’s',
      change: { note: note(onBehalf) },
      verdict: 'GUARD_DROP_SYN',
    },
    { what: 'a direct one', change: { note: note(direct) }, verdict: 'GUARD_PASS' },
    { what: 'a direct one to another port', change: { note: note(direct, { port: 81 }) }, verdict: 'GUARD_DROP_PEER' },
    {
      what: 'a direct one to another address',
      change: { note: note(direct, { to: '10.1.0.8' }) },
      verdict: 'GUARD_DROP_PEER',
    },
    {
      what: 'a direct one under a foreign address',
      change: { note: note(direct), source_is_own: 0 },
      verdict: 'GUARD_DROP_PEER',
    },
    {
      what: 'a direct one of another namespace',
      change: { note: note(direct, { client: 8n }) },
      verdict: 'GUARD_DROP_PEER',
    },
    { what: 'one out of the mesh', change: { note: note(passed) }, verdict: 'GUARD_PASS' },
    {
      what: 'one out of the mesh from a second address',
      change: { note: note(passed), source_is_own: 0 },
      verdict: 'GUARD_PASS',
    },
    { what: 'one out of the mesh, elsewhere', change: { note: note(passed, { port: 1 }) }, verdict: 'GUARD_DROP_PEER' },
    { what: 'data of a connection', change: { packet: data }, verdict: 'GUARD_PASS' },
    { what: 'a SYN-ACK', change: { packet: { flags: SYN | ACK } }, verdict: 'GUARD_PASS' },
    { what: 'an opening with FIN', change: { packet: { flags: SYN | FIN } }, verdict: 'GUARD_DROP_SYN' },
    { what: 'a later fragment of a socket', change: { packet: { kind: kinds.fragment } }, verdict: 'GUARD_PASS' },
    { what: 'what cannot be read', change: { packet: { kind: kinds.unreadable } }, verdict: 'GUARD_DROP_UNREADABLE' },
    {
      what: 'the same of an agent',
      change: { is_agent: 1, packet: { kind: kinds.unreadable } },
      verdict: 'GUARD_DROP_UNREADABLE',
    },
    {
      what: 'an answer without a whole socket',
      change: { owner: owners.mini, packet: { flags: SYN | ACK } },
      verdict: 'GUARD_PASS',
    },
    { what: 'the kernel’s RST', change: { ...kernels, packet: { flags: RST } }, verdict: 'GUARD_PASS' },
    { what: 'the kernel’s RST with ACK', change: { ...kernels, packet: { flags: RST | ACK } }, verdict: 'GUARD_PASS' },
    { what: 'the kernel’s bare ACK', change: { ...kernels, packet: { flags: ACK } }, verdict: 'GUARD_PASS' },
    { what: 'an opening that looks like the kernel’s', change: kernels, verdict: 'GUARD_DROP_HANDMADE' },
    {
      what: 'a SYN-ACK that does',
      change: { ...kernels, packet: { flags: SYN | ACK } },
      verdict: 'GUARD_DROP_HANDMADE',
    },
    { what: 'data that does', change: { ...kernels, packet: data }, verdict: 'GUARD_DROP_HANDMADE' },
    {
      what: 'a RST with data that does',
      change: { ...kernels, packet: { flags: RST, payload: 1 } },
      verdict: 'GUARD_DROP_HANDMADE',
    },
    {
      what: 'a fragment that does',
      change: { ...kernels, packet: { kind: kinds.fragment } },
      verdict: 'GUARD_DROP_HANDMADE',
    },
    {
      what: 'a SYN-ACK of no socket (a cookie)',
      change: { ...unowned, packet: { flags: SYN | ACK } },
      verdict: 'GUARD_PASS',
    },
    { what: 'a RST of no socket', change: { ...unowned, packet: { flags: RST } }, verdict: 'GUARD_PASS' },
    { what: 'an opening of no socket', change: unowned, verdict: 'GUARD_DROP_UNOWNED' },
    { what: 'data of no socket', change: { ...unowned, packet: data }, verdict: 'GUARD_DROP_UNOWNED' },
    { what: 'a FIN of no socket', change: { ...unowned, packet: { flags: FIN | ACK } }, verdict: 'GUARD_DROP_UNOWNED' },
    {
      what: 'a SYN-ACK from behind the pod',
      change: { ...unowned, is_forwarded: 1, packet: { flags: SYN | ACK } },
      verdict: 'GUARD_DROP_FORWARDED',
    },
    {
      what: 'an opening from behind the pod',
      change: { ...unowned, is_forwarded: 1 },
      verdict: 'GUARD_DROP_FORWARDED',
    },
    { what: 'a handmade opening', change: handmade, verdict: 'GUARD_DROP_HANDMADE' },
    { what: 'a handmade opening of an agent', change: { ...handmade, is_agent: 1 }, verdict: 'GUARD_DROP_HANDMADE' },
    { what: 'handmade data', change: { ...handmade, packet: data }, verdict: 'GUARD_DROP_HANDMADE' },
    { what: 'a handmade RST', change: { ...handmade, packet: { flags: RST } }, verdict: 'GUARD_DROP_HANDMADE' },
    { what: 'handmade UDP', change: { ...handmade, packet: { kind: kinds.other } }, verdict: 'GUARD_PASS' },
    { what: 'all while the pod is on its way in or out', change: { ...handmade, pod_state: 1 }, verdict: 'GUARD_PASS' },
    {
      what: 'TCP of a namespace without an entry',
      change: { is_agent: 1, pod_state: 0 },
      verdict: 'GUARD_DROP_UNKNOWN',
    },
    {
      what: 'the answer of a listener on loopback',
      change: { owner: owners.mini, packet: { source: '::1', flags: SYN | ACK } },
      verdict: 'GUARD_DROP_LOOPBACK',
    },
    { what: 'data from 127/8', change: { packet: { ...data, source: '127.0.0.1' } }, verdict: 'GUARD_DROP_LOOPBACK' },
    { what: 'UDP of one', change: { packet: { kind: kinds.other }, pod_state: 0 }, verdict: 'GUARD_PASS' },
  ])('$what: $verdict', ({ change, verdict }) => {
    expect(decide(change)).toBe(verdict)
  })
})

describe('the guard reads', () => {
  const bytes = (...parts: (number[] | Uint8Array)[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]))
  const ethernet = (type: number, tags: readonly (readonly [number, number])[] = []): number[] => [
    ...Array<number>(12).fill(2),
    ...tags.flatMap(([kind, vlan]) => [kind >> 8, kind & 255, vlan >> 8, vlan & 255]),
    type >> 8,
    type & 255,
  ]
  const tcp = (port: number, flags: number, payload: number): number[] => [
    ...[1, 2, port >> 8, port & 255, 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, flags, 0, 9, 0, 0, 0, 0],
    ...Array<number>(payload).fill(65),
  ]
  const [from4, to4] = [
    [10, 1, 0, 5],
    [10, 1, 0, 9],
  ]
  const v4 = (
    inner: number[],
    change: { protocol?: number; options?: number; fragment?: number; total?: number; version?: number } = {},
  ): number[] => {
    const words = 5 + (change.options ?? 0)
    const total = change.total ?? words * 4 + inner.length
    const fragment = change.fragment ?? 0
    return [
      ...[((change.version ?? 4) << 4) | words, 0, total >> 8, total & 255, 0, 1, fragment >> 8, fragment & 255],
      ...[64, change.protocol ?? 6, 0, 0, ...from4, ...to4, ...Array<number>((words - 5) * 4).fill(1)],
      ...inner,
    ]
  }
  const [from6, to6] = [
    [0xfd, ...Array<number>(14).fill(0), 5],
    [0xfd, ...Array<number>(14).fill(0), 9],
  ]
  const v6 = (inner: number[], first = 6, length = inner.length): number[] => [
    ...[0x60, 0, 0, 0, length >> 8, length & 255, first, 64, ...from6, ...to6],
    ...inner,
  ]
  /** Extension headers before what `inner` is of. */
  const chain = (headers: readonly { kind: number; units: number }[], inner: number[], of = 6): [number[], number] => {
    let [out, next] = [inner, of]
    for (const { kind, units } of headers.toReversed()) {
      const length = kind === 44 ? 8 : kind === 51 ? (units + 2) * 4 : (units + 1) * 8
      out = [next, kind === 44 ? 0 : units, ...Array<number>(length - 2).fill(0), ...out]
      next = kind
    }
    return [out, next]
  }
  const read = (program: 'test_frame' | 'test_bare', data: Uint8Array): Packet => {
    module.programs[program].testRun({ data })
    return module.maps.test_packets.get(0)!
  }
  const frame = (data: Uint8Array): Packet => read('test_frame', data)

  it('whatever a receiver would take for TCP, behind options, tags and extension headers', () => {
    const extension = fc.record({
      kind: fc.constantFrom(0, 43, 44, 51, 60, 135, 139, 140),
      units: fc.integer({ min: 0, max: 6 }),
    })
    const any = fc.record({
      six: fc.boolean(),
      tags: fc.array(fc.tuple(fc.constantFrom(0x8100, 0x88a8), fc.integer({ min: 0, max: 4095 })), { maxLength: 4 }),
      options: fc.integer({ min: 0, max: 10 }),
      extensions: fc.array(extension, { maxLength: 8 }),
      port: fc.integer({ min: 0, max: 65_535 }),
      flags: fc.integer({ min: 0, max: 255 }),
      payload: fc.constantFrom(0, 1, 700),
    })
    fc.assert(
      fc.property(any, ({ six, tags, options, extensions, port, flags, payload }) => {
        const segment = tcp(port, flags, payload)
        const packet = six ? v6(...chain(extensions, segment)) : v4(segment, { options })
        const found = frame(bytes(ethernet(six ? 0x86dd : 0x0800, tags), packet))
        expect(found).toMatchObject({ kind: kinds.tcp, destination_port: port, flags, payload: payload > 0 ? 1 : 0 })
        expect(formatIp(found.source.bytes)).toBe(six ? 'fd00::5' : '10.1.0.5')
        expect(formatIp(found.destination.bytes)).toBe(six ? 'fd00::9' : '10.1.0.9')
      }),
      { numRuns: 300 },
    )
  })

  it('the port of UDP, where that is asked for', () => {
    const udp = [1, 2, 0x14, 0xb4, 0, 8, 0, 0]
    const read = (data: Uint8Array): Packet => {
      module.programs.test_datagram_frame.testRun({ data })
      return module.maps.test_packets.get(0)!
    }
    const [tail, next] = chain([{ kind: 60, units: 2 }], udp, 17)
    for (const packet of [
      v4(udp, { protocol: 17 }),
      v4(udp, { protocol: 17, options: 3 }),
      v6(udp, 17),
      v6(tail, next),
    ]) {
      const type = packet[0]! >> 4 === 4 ? 0x0800 : 0x86dd
      expect(read(bytes(ethernet(type), packet))).toMatchObject({ kind: kinds.udp, destination_port: 5300 })
    }
    expect(read(bytes(ethernet(0x0800), v4(tcp(5300, SYN, 0)))).kind).toBe(kinds.other)
    expect(read(bytes(ethernet(0x0800, [[0x8100, 0]]), v4([1, 2, 3], { protocol: 17 }))).kind).toBe(kinds.unreadable)
  })

  it('nothing else as TCP', () => {
    const other = fc.integer({ min: 0, max: 255 }).filter((one) => ![6, 0, 43, 44, 51, 60, 135, 139, 140].includes(one))
    fc.assert(
      fc.property(
        other,
        fc.boolean(),
        fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 60 }),
        (protocol, six, rest) => {
          const packet = six ? v6(rest, protocol) : v4(rest, { protocol })
          expect(frame(bytes(ethernet(six ? 0x86dd : 0x0800), packet)).kind).toBe(kinds.other)
        },
      ),
      { numRuns: 200 },
    )
    // ARP, LLDP, PTP, a frame with its length in place of a type.
    for (const type of [0x0806, 0x88cc, 0x88f7, 0x0100]) {
      expect(frame(bytes(ethernet(type), Array<number>(46).fill(0))).kind).toBe(kinds.other)
    }
  })

  // Without a tag BPF_PROG_TEST_RUN itself refuses the shortest.
  const priority = [[0x8100, 0]] as const
  it.each([
    { what: 'a later fragment over IPv4', packet: v4(tcp(80, SYN, 0), { fragment: 3 }), kind: 'fragment' },
    { what: 'the first of many over IPv4', packet: v4(tcp(80, SYN, 0), { fragment: 0x2000 }), kind: 'tcp' },
    {
      what: 'a first one that ends before the flags',
      packet: v4(tcp(80, SYN, 0).slice(0, 8), { fragment: 0x2000 }),
      kind: 'unreadable',
    },
    { what: 'a header of fewer than five words', packet: [0x44, ...v4(tcp(80, SYN, 0)).slice(1)], kind: 'unreadable' },
    { what: 'options that reach past the end', packet: [0x4f, ...v4(tcp(80, SYN, 0)).slice(1)], kind: 'unreadable' },
    { what: 'a version that is none', packet: v4(tcp(80, SYN, 0), { version: 5 }), kind: 'unreadable' },
    { what: 'less than a header', packet: v4([]).slice(0, 12), kind: 'unreadable' },
  ] as const)('$what as $kind', ({ packet, kind }) => {
    expect(frame(bytes(ethernet(0x0800, priority), [...packet])).kind).toBe(kinds[kind])
  })

  const later = (next: number): number[] => [next, 0, 0, 8, 0, 0, 0, 7, ...tcp(80, SYN, 0)]
  const nine = Array.from({ length: 9 }, () => ({ kind: 60, units: 0 }))
  it.each([
    { what: 'a later fragment over IPv6', packet: v6(later(6), 44), kind: 'fragment' },
    { what: 'one that says it begins with options', packet: v6(later(60), 44), kind: 'fragment' },
    { what: 'one of UDP', packet: v6(later(17), 44), kind: 'other' },
    {
      what: 'a first one that ends within its options',
      packet: v6([60, 0, 0, 1, 0, 0, 0, 7, 6, 20, 0, 0, 0, 0, 0, 0], 44),
      kind: 'unreadable',
    },
    { what: 'more headers than are walked', packet: v6(...chain(nine, tcp(80, SYN, 0))), kind: 'unreadable' },
    { what: 'a header that is cut off', packet: v6([6], 60), kind: 'unreadable' },
    { what: 'less than a header', packet: v6([]).slice(0, 39), kind: 'unreadable' },
    { what: 'IPv4 that says it is IPv6', packet: v4(tcp(80, SYN, 30)), kind: 'unreadable' },
  ] as const)('$what as $kind', ({ packet, kind }) => {
    expect(frame(bytes(ethernet(0x86dd, priority), [...packet])).kind).toBe(kinds[kind])
  })

  it('more tags than it walks, and a frame that ends in one, as unreadable', () => {
    const tags = Array.from({ length: 5 }, () => [0x8100, 0] as const)
    expect(frame(bytes(ethernet(0x0800, tags), v4(tcp(80, SYN, 0)))).kind).toBe(kinds.unreadable)
    expect(frame(bytes(ethernet(0x8100), [0, 0])).kind).toBe(kinds.unreadable)
  })

  it('a payload wherever IP does not tell its length', () => {
    expect(frame(bytes(ethernet(0x0800), v4(tcp(80, ACK, 0), { total: 0 }))).payload).toBe(1)
    expect(frame(bytes(ethernet(0x86dd), v6(tcp(80, ACK, 0), 6, 0))).payload).toBe(1)
    // What lies behind the end that IP tells is padding.
    expect(frame(bytes(ethernet(0x0800), v4(tcp(80, ACK, 0)), Array<number>(6).fill(0))).payload).toBe(0)
  })

  it('an interface without Ethernet headers by the version of IP', () => {
    const bare = (type: number, packet: number[]): Packet => read('test_bare', bytes(ethernet(type), packet))
    // The kernel is told nothing of use: the type may be anything.
    for (const type of [0x0800, 0x86dd, 0x0806]) {
      expect(bare(type, v4(tcp(80, SYN, 0)))).toMatchObject({ kind: kinds.tcp, flags: SYN })
      expect(bare(type, v6(tcp(80, SYN, 0)))).toMatchObject({ kind: kinds.tcp, flags: SYN })
      expect(bare(type, v4(tcp(80, SYN, 0), { protocol: 17 })).kind).toBe(kinds.other)
    }
    expect(bare(0x0806, [0, 1, 8, 0, 6, 4, 0, 1, ...Array<number>(20).fill(0)]).kind).toBe(kinds.other)
  })
})

describe('a datagram that no connected socket takes', () => {
  const refuse = { remote: '10.1.0.9', local: '10.1.0.5', remote_is_own: 0, verdict: 2, pod_state: 2, local_is_own: 1 }
  it.each([
    { what: 'from outside to a port that the table refuses', change: {}, refused: 1 },
    { what: 'to a port without a row', change: { verdict: 0 }, refused: 0 },
    { what: 'to a port that may be', change: { verdict: 1 }, refused: 0 },
    { what: 'while the pod is on its way in or out', change: { pod_state: 1 }, refused: 0 },
    { what: 'to a namespace without an entry', change: { pod_state: 0 }, refused: 1 },
    { what: 'of the pod itself', change: { remote_is_own: 1 }, refused: 0 },
    { what: 'over loopback', change: { remote: '127.0.0.1', local: '127.0.0.1' }, refused: 0 },
    { what: 'over IPv6 loopback', change: { remote: '::1', local: '::1' }, refused: 0 },
  ])('$what is refused: $refused', ({ change, refused }) => {
    const { remote, local, ...rest } = { ...refuse, ...change }
    const facts = { ...rest, remote: kernelAddress(remote), local: kernelAddress(local) }
    const input = encode(DatagramCase, { facts, refused: 9, group_refused: 9 })
    const { context } = module.programs.test_datagram.testRun({ context: input })
    expect(decode(DatagramCase, context).refused).toBe(refused)
  })

  it.each([
    { what: 'to all, at a port that the table refuses', change: {}, refused: 1 },
    { what: 'to all, at another port', change: { verdict: 0 }, refused: 0 },
    { what: 'to the pod alone, which sk_lookup sees', change: { local_is_own: 1 }, refused: 0 },
    { what: 'to all while the pod is on its way in or out', change: { pod_state: 1 }, refused: 0 },
  ])('$what is refused at the entry: $refused', ({ change, refused }) => {
    const addresses = { remote: kernelAddress('10.1.0.9'), local: kernelAddress('10.1.0.255') }
    const facts = { ...refuse, local_is_own: 0, ...change, ...addresses }
    const input = encode(DatagramCase, { facts, refused: 9, group_refused: 9 })
    const { context } = module.programs.test_datagram.testRun({ context: input })
    expect(decode(DatagramCase, context).group_refused).toBe(refused)
  })
})
