// The kernel's decisions, run by the kernel on facts made up here (BPF_PROG_TEST_RUN): one row a rule.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openObject, type BpfModule } from '../../native/bpf/index.ts'
import { encode, decode, type Codec } from '../../native/bpf/codec.ts'
import {
  AddressCase,
  ConnectCase,
  decideSchema,
  LookupCase,
  OpenCase,
  PeerCase,
  RouteCase,
  type LookupFacts,
} from '../../native/bpf/gen/test/decide.ts'
import { counterNames } from '../../agent/node/redirect/counters.ts'
import { emptyNote, kernelAddress, noteKinds } from '../../agent/node/redirect/notes.ts'

const objectFile = (name: string): string => new URL(`../../bpf/build/${name}.bpf.o`, import.meta.url).pathname

/** Names of an enum of an object, by value. */
function enumOf(file: string, name: string): Record<number, string> {
  const object = openObject(objectFile(file))
  object.close()
  for (const type of object.btf.types) {
    if (type.kind !== 'enum' || type.name !== name) continue
    return Object.fromEntries(type.values.map((entry) => [Number(entry.value), entry.name]))
  }
  throw new Error(`${file} has no enum ${name}`)
}

const PASSING = 1
const CAPTURED = 2
const verdicts = { agent: 0, allow: 1, deny: 2, byPort: 3, byClient: 4 }
const classes = { agent: 0, direct: 1, plain: 2 }
const ports = { outbound: 61_001, hbone: 61_002, plaintext: 61_003 }

describe('the kernel’s decisions', () => {
  let module: BpfModule<typeof decideSchema>
  const connectVerdicts = enumOf('decide', 'connect_verdict')
  const lookupVerdicts = enumOf('decide', 'lookup_verdict')

  beforeAll(async () => {
    module = await openObject(objectFile('decide'), decideSchema).load()
  })
  afterAll(() => module.close())

  function run<T>(program: keyof typeof module.programs, codec: Codec<T>, input: T): T {
    return decode(codec, module.programs[program].testRun({ context: encode(codec, input) }).context)
  }

  describe('about connect()', () => {
    const captured = {
      destination: '10.96.0.7',
      is_tcp: 1,
      is_agent: 0,
      is_own: 0,
      pod_state: CAPTURED,
      is_canary: 0,
    }
    const canary = { is_agent: 1, is_canary: 1 }
    it.each([
      { what: 'TCP of a captured pod', facts: {}, verdict: 'CONNECT_CAPTURE' },
      { what: 'the same over IPv6', facts: { destination: 'fd00::1' }, verdict: 'CONNECT_CAPTURE' },
      { what: 'the same v4-mapped', facts: { destination: '::ffff:10.96.0.7' }, verdict: 'CONNECT_CAPTURE' },
      { what: 'a link-local IPv4 address', facts: { destination: '169.254.169.254' }, verdict: 'CONNECT_CAPTURE' },
      { what: 'a namespace that is not enrolled', facts: { pod_state: 0 }, verdict: 'CONNECT_PASS' },
      { what: 'a pod on its way in or out', facts: { pod_state: PASSING }, verdict: 'CONNECT_PASS' },
      { what: 'what is not TCP', facts: { is_tcp: 0 }, verdict: 'CONNECT_PASS' },
      { what: 'the agent', facts: { is_agent: 1 }, verdict: 'CONNECT_PASS_AGENT' },
      { what: 'the agent’s canary', facts: canary, verdict: 'CONNECT_CAPTURE' },
      { what: 'a canary of a pod on its way out', facts: { ...canary, pod_state: PASSING }, verdict: 'CONNECT_PASS' },
      { what: 'the agent to loopback', facts: { is_agent: 1, destination: '::1' }, verdict: 'CONNECT_PASS_AGENT' },
      { what: 'loopback', facts: { destination: '127.0.0.1' }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'the far end of 127/8', facts: { destination: '127.255.255.254' }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'IPv6 loopback', facts: { destination: '::1' }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'the unspecified address', facts: { destination: '0.0.0.0' }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'the unspecified IPv6 address', facts: { destination: '::' }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'the pod’s own address', facts: { is_own: 1 }, verdict: 'CONNECT_PASS_LOCAL' },
      { what: 'a link-local IPv6 address', facts: { destination: 'fe80::1' }, verdict: 'CONNECT_REFUSE_LINK_LOCAL' },
      { what: 'what only looks like loopback', facts: { destination: '::2' }, verdict: 'CONNECT_CAPTURE' },
    ])('$what: $verdict', ({ facts, verdict }) => {
      const { destination, ...rest } = { ...captured, ...facts }
      const input = { facts: { ...rest, destination: kernelAddress(destination), port: 80 }, verdict: 99 }
      expect(connectVerdicts[run('test_connect', ConnectCase, input).verdict]).toBe(verdict)
    })
  })

  describe('about where a connection goes', () => {
    const routes = enumOf('decide', 'route')
    const endpoint = {
      port: 8080,
      known: 1,
      class: classes.direct,
      verdict: verdicts.allow,
      chosen: 0,
      pass_unknown: 1,
      other_family: 0,
    }
    it.each([
      { what: 'a pod of this node that may be dialled', facts: {}, route: 'ROUTE_DIRECT' },
      {
        what: 'a pod of this node that refuses, which it does itself',
        facts: { verdict: verdicts.deny },
        route: 'ROUTE_DIRECT',
      },
      { what: 'a pod of this node without a verdict', facts: { verdict: verdicts.agent }, route: 'ROUTE_AGENT' },
      { what: 'a table that says look further', facts: { verdict: verdicts.byClient }, route: 'ROUTE_AGENT' },
      { what: 'the tunnel port', facts: { port: 15_008 }, route: 'ROUTE_AGENT' },
      { what: 'a workload the agent knows more of', facts: { class: classes.agent }, route: 'ROUTE_AGENT' },
      { what: 'a class of a later version', facts: { class: 9 }, route: 'ROUTE_AGENT' },
      { what: 'a workload outside the mesh', facts: { class: classes.plain, verdict: 0 }, route: 'ROUTE_PASS' },
      { what: 'an unknown address', facts: { known: 0 }, route: 'ROUTE_PASS' },
      {
        what: 'an unknown address under REGISTRY_ONLY',
        facts: { known: 0, pass_unknown: 0 },
        route: 'ROUTE_AGENT',
      },
      { what: 'an endpoint nobody knows', facts: { known: 0, chosen: 1 }, route: 'ROUTE_AGENT' },
      { what: 'an endpoint of the other family', facts: { other_family: 1 }, route: 'ROUTE_AGENT' },
      {
        what: 'an endpoint of the other family outside the mesh',
        facts: { other_family: 1, class: classes.plain },
        route: 'ROUTE_AGENT',
      },
    ])('$what: $route', ({ facts, route }) => {
      const input = { facts: { ...endpoint, ...facts }, route: 99, kind: 99 }
      const output = run('test_route', RouteCase, input)
      const kinds = { ROUTE_AGENT: noteKinds.dialled, ROUTE_DIRECT: noteKinds.direct, ROUTE_PASS: noteKinds.passed }
      expect(routes[output.route]).toBe(route)
      expect(output.kind).toBe(kinds[route as keyof typeof kinds])
    })
  })

  describe('about a new connection', () => {
    const facts: Omit<LookupFacts, 'remote' | 'local'> & { remote: string; local: string } = {
      remote: '10.1.0.9',
      local: '10.1.0.5',
      local_port: 8080,
      flow: 0,
      remote_is_own: 0,
      verdict: 0,
      pod: { listener_ports: Object.values(ports), state: CAPTURED, refuse_plaintext: 0, flags: 0 },
    }
    const refusing = { ...facts.pod, refuse_plaintext: 1 }
    const passing = { ...facts.pod, state: PASSING }
    const unknown = { listener_ports: [0, 0, 0], state: 0, refuse_plaintext: 0, flags: 0 }
    const direct = { flow: noteKinds.direct }
    const own = { remote: '10.1.0.5' }
    const loopback = { remote: '127.0.0.1', local: '127.0.0.1' }
    const captured = { ...loopback, local_port: 1, flow: noteKinds.dialled }
    it.each([
      { what: 'plaintext', change: {}, verdict: 'LOOKUP_PLAINTEXT' },
      { what: 'plaintext where it is refused', change: { pod: refusing }, verdict: 'LOOKUP_REFUSE_PLAINTEXT' },
      { what: 'the tunnel port', change: { local_port: 15_008 }, verdict: 'LOOKUP_HBONE' },
      {
        what: 'the tunnel port under STRICT',
        change: { local_port: 15_008, pod: refusing },
        verdict: 'LOOKUP_HBONE',
      },
      {
        what: 'the tunnel port from the pod itself',
        change: { ...own, local_port: 15_008 },
        verdict: 'LOOKUP_HBONE',
      },
      { what: 'the pod calling its own address', change: own, verdict: 'LOOKUP_SELF' },
      { what: 'the same under STRICT', change: { ...own, pod: refusing }, verdict: 'LOOKUP_SELF' },
      { what: 'the pod’s second address', change: { remote_is_own: 1 }, verdict: 'LOOKUP_SELF' },
      { what: 'loopback', change: loopback, verdict: 'LOOKUP_SELF' },
      { what: 'IPv6 loopback', change: { remote: '::1', local: '::1' }, verdict: 'LOOKUP_SELF' },
      {
        what: 'the outbound listener dialled',
        change: { ...loopback, local_port: ports.outbound },
        verdict: 'LOOKUP_REFUSE_DIALLED',
      },
      {
        what: 'the plaintext listener dialled',
        change: { ...loopback, local_port: ports.plaintext },
        verdict: 'LOOKUP_REFUSE_DIALLED',
      },
      {
        what: 'a listener dialled while passing',
        change: { ...loopback, local_port: ports.hbone, pod: passing },
        verdict: 'LOOKUP_REFUSE_DIALLED',
      },
      { what: 'a captured connection', change: captured, verdict: 'LOOKUP_OUTBOUND' },
      {
        what: 'a captured connection while the pod leaves',
        change: { ...captured, pod: passing },
        verdict: 'LOOKUP_OUTBOUND',
      },
      { what: 'a delivery', change: { ...own, flow: noteKinds.onBehalf }, verdict: 'LOOKUP_DELIVER' },
      {
        what: 'a delivery to the tunnel port’s number',
        change: { local_port: 15_008, flow: noteKinds.onBehalf },
        verdict: 'LOOKUP_DELIVER',
      },
      { what: 'a pod of this node that may', change: { ...direct, verdict: verdicts.allow }, verdict: 'LOOKUP_DIRECT' },
      {
        what: 'a pod of this node that may not',
        change: { ...direct, verdict: verdicts.deny },
        verdict: 'LOOKUP_REFUSE_DENIED',
      },
      { what: 'a pod of this node nobody judged', change: direct, verdict: 'LOOKUP_REFUSE_NO_VERDICT' },
      {
        what: 'a pod of this node that may, under STRICT',
        change: { ...direct, verdict: verdicts.allow, pod: refusing },
        verdict: 'LOOKUP_DIRECT',
      },
      { what: 'a direct connection while the pod leaves', change: { ...direct, pod: passing }, verdict: 'LOOKUP_PASS' },
      {
        what: 'a direct connection to a namespace without an entry',
        change: { ...direct, verdict: verdicts.allow, pod: unknown },
        verdict: 'LOOKUP_REFUSE_UNKNOWN',
      },
      {
        what: 'the kubelet’s probe under STRICT',
        change: { flow: noteKinds.kubelet, pod: refusing },
        verdict: 'LOOKUP_PROBE',
      },
      { what: 'a pod that leaves', change: { pod: passing }, verdict: 'LOOKUP_PASS' },
      { what: 'a namespace without an entry', change: { pod: unknown }, verdict: 'LOOKUP_REFUSE_UNKNOWN' },
      {
        what: 'loopback of a namespace without an entry',
        change: { ...loopback, pod: unknown },
        verdict: 'LOOKUP_REFUSE_UNKNOWN',
      },
      { what: 'a flow of no known kind', change: { flow: noteKinds.client }, verdict: 'LOOKUP_PLAINTEXT' },
    ])('$what: $verdict', ({ change, verdict }) => {
      const { remote, local, ...rest } = { ...facts, ...change }
      const input = { facts: { ...rest, remote: kernelAddress(remote), local: kernelAddress(local) }, verdict: 99 }
      expect(lookupVerdicts[run('test_lookup', LookupCase, input).verdict]).toBe(verdict)
    })
  })

  describe('about an open connection', () => {
    const openVerdicts = enumOf('decide', 'open_verdict')
    const [ESTABLISHED, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LAST_ACK, LISTEN] = [1, 5, 6, 8, 9, 10]
    const facts = {
      local: '10.1.0.5',
      remote: '10.1.0.9',
      local_port: 8080,
      note: 0,
      state: ESTABLISHED,
      verdict: 0,
      condemned: 0,
      remote_is_own: 0,
    }
    const attested = { note: noteKinds.attested }
    it.each([
      { what: 'from before', change: {}, verdict: 'OPEN_ASK' },
      { what: 'half closed from before', change: { state: CLOSE_WAIT }, verdict: 'OPEN_ASK' },
      { what: 'the other half closed', change: { state: FIN_WAIT2 }, verdict: 'OPEN_ASK' },
      { what: 'over already', change: { state: TIME_WAIT }, verdict: 'OPEN_LEAVE' },
      { what: 'as good as over', change: { state: LAST_ACK, condemned: 1 }, verdict: 'OPEN_LEAVE' },
      { what: 'that the agent condemned', change: { condemned: 1 }, verdict: 'OPEN_DESTROY_OLDER' },
      { what: 'to be made', change: { state: LISTEN }, verdict: 'OPEN_LISTENS' },
      { what: 'of the tunnel port', change: { local_port: 15_008, condemned: 1 }, verdict: 'OPEN_LEAVE' },
      { what: 'with the pod itself', change: { remote_is_own: 1, condemned: 1 }, verdict: 'OPEN_LEAVE' },
      { what: 'within loopback', change: { local: '::1', remote: '::1' }, verdict: 'OPEN_LEAVE' },
      { what: 'delivered by the agent', change: { note: noteKinds.client }, verdict: 'OPEN_LEAVE' },
      { what: 'captured', change: { note: noteKinds.captured, condemned: 1 }, verdict: 'OPEN_LEAVE' },
      { what: 'of the kubelet', change: { note: noteKinds.kubelet }, verdict: 'OPEN_LEAVE' },
      { what: 'that goes direct', change: { note: noteKinds.direct }, verdict: 'OPEN_LEAVE' },
      { what: 'that came direct and is allowed', change: { ...attested, verdict: 1 }, verdict: 'OPEN_LEAVE' },
      { what: 'that came direct and is denied', change: { ...attested, verdict: 2 }, verdict: 'OPEN_DESTROY_DIRECT' },
      { what: 'that came direct, without a verdict', change: attested, verdict: 'OPEN_DESTROY_DIRECT' },
    ])('$what: $verdict', ({ change, verdict }) => {
      const { local, remote, ...rest } = { ...facts, ...change }
      const input = { facts: { ...rest, local: kernelAddress(local), remote: kernelAddress(remote) }, verdict: 99 }
      expect(openVerdicts[run('test_open', OpenCase, input).verdict]).toBe(verdict)
    })
  })

  describe('about the answer of getpeername()', () => {
    const INET = 2
    const INET6 = 10
    const peer = (
      kind: number,
      change: { peer?: string; port?: number; family?: number; noted?: string; own?: number },
    ) =>
      run('test_peer', PeerCase, {
        facts: {
          peer: kernelAddress(change.peer ?? '127.0.0.1'),
          port: change.port ?? 1,
          family: change.family ?? INET,
          source_is_own: change.own ?? 1,
          note: {
            ...emptyNote,
            address: kernelAddress(change.noted ?? '10.96.0.7'),
            port: 80,
            kind,
            chosen: kernelAddress('10.1.0.9'),
            chosen_port: 8080,
          },
        },
        answered: 9,
        travels: 9,
        accepted_kind: 99,
      })

    it('is what the pod dialled, as long as the socket is captured', () => {
      expect(peer(noteKinds.dialled, {}).answered).toBe(1)
      expect(peer(noteKinds.dialled, { peer: '::1', family: INET6 }).answered).toBe(1)
      expect(peer(noteKinds.dialled, { peer: '10.96.0.9' }).answered).toBe(0)
      expect(peer(noteKinds.dialled, { port: 8080 }).answered).toBe(0)
    })

    it('is the real client on the app’s socket', () => {
      expect(peer(noteKinds.client, { peer: '10.1.0.5', port: 40_000 }).answered).toBe(1)
    })

    it('is never an IPv6 address on an IPv4 socket', () => {
      expect(peer(noteKinds.client, { noted: 'fd00::1' }).answered).toBe(0)
      expect(peer(noteKinds.client, { noted: 'fd00::1', family: INET6 }).answered).toBe(1)
    })

    it('is the true peer on the agent’s own sockets', () => {
      expect(peer(noteKinds.captured, {}).answered).toBe(0)
      expect(peer(noteKinds.onBehalf, {}).answered).toBe(0)
      expect(peer(0, {}).answered).toBe(0)
    })

    it('is the service dialled, as long as the socket goes to the endpoint chosen for it', () => {
      for (const kind of [noteKinds.direct, noteKinds.passed]) {
        expect(peer(kind, { peer: '10.1.0.9', port: 8080 }).answered).toBe(1)
        expect(peer(kind, { peer: '10.1.0.9', port: 8081 }).answered).toBe(0)
        expect(peer(kind, { peer: '10.1.0.8', port: 8080 }).answered).toBe(0)
      }
      expect(peer(noteKinds.attested, { peer: '10.1.0.9', port: 8080 }).answered).toBe(0)
    })

    it('attests a direct connection, from the pod’s own address and to the endpoint chosen only', () => {
      const chosen = { peer: '10.1.0.9', port: 8080 }
      expect(peer(noteKinds.direct, chosen)).toMatchObject({ travels: 1, accepted_kind: noteKinds.attested })
      expect(peer(noteKinds.direct, { ...chosen, own: 0 }).travels).toBe(0)
      expect(peer(noteKinds.direct, { ...chosen, port: 1 }).travels).toBe(0)
      expect(peer(noteKinds.passed, chosen).travels).toBe(0)
      expect(peer(noteKinds.attested, chosen).travels).toBe(0)
    })

    it('lets only captured and delivering sockets’ notes travel, each as what it means at the other end', () => {
      expect(peer(noteKinds.dialled, {})).toMatchObject({ travels: 1, accepted_kind: noteKinds.captured })
      expect(peer(noteKinds.canary, {})).toMatchObject({ travels: 1, accepted_kind: noteKinds.captured })
      expect(peer(noteKinds.onBehalf, { peer: '10.1.0.5', port: 80 })).toMatchObject({
        travels: 1,
        accepted_kind: noteKinds.client,
      })
      expect(peer(noteKinds.dialled, { port: 2 }).travels).toBe(0)
      expect(peer(noteKinds.canary, { port: 2 }).travels).toBe(0)
      // The kubelet's are filed by its own program; the app sees the address they come from.
      expect(peer(noteKinds.kubelet, {})).toMatchObject({ accepted_kind: noteKinds.kubelet, answered: 0 })
      expect(peer(noteKinds.captured, {}).travels).toBe(0)
      expect(peer(noteKinds.client, {}).travels).toBe(0)
    })
  })

  it.each([
    { text: '127.0.0.1', v4: 1, loopback: 1, unspecified: 0, link_local: 0 },
    { text: '128.0.0.1', v4: 1, loopback: 0, unspecified: 0, link_local: 0 },
    { text: '0.0.0.0', v4: 1, loopback: 0, unspecified: 1, link_local: 0 },
    { text: '::', v4: 0, loopback: 0, unspecified: 1, link_local: 0 },
    { text: '::1', v4: 0, loopback: 1, unspecified: 0, link_local: 0 },
    { text: '::127.0.0.1', v4: 0, loopback: 0, unspecified: 0, link_local: 0 },
    { text: 'febf::1', v4: 0, loopback: 0, unspecified: 0, link_local: 1 },
    { text: 'fec0::1', v4: 0, loopback: 0, unspecified: 0, link_local: 0 },
    { text: '1::', v4: 0, loopback: 0, unspecified: 0, link_local: 0 },
  ])('know $text', ({ text, ...expected }) => {
    const input = { address: kernelAddress(text), v4: 9, loopback: 9, unspecified: 9, link_local: 9 }
    expect(run('test_address', AddressCase, input)).toMatchObject(expected)
  })

  it('count under names that say outcome and reason, in the order of the kernel’s map', () => {
    const constants = Object.keys(enumOf('sk_lookup', 'counter'))
    expect(counterNames).toHaveLength(constants.length - 1)
    expect(counterNames.slice(0, 4)).toEqual(['redirected', 'passed.local', 'passed.agent', 'captured'])
    expect(counterNames.filter((name) => name.startsWith('dropped.'))).toContain('dropped.plaintext_refused')
    expect(counterNames.every((name) => /^([a-z_]+|(passed|dropped)\.[a-z_]+)$/.test(name))).toBe(true)
  })
})
