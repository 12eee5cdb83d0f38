// That tables say what authorizeInbound says, or nothing; and that they are small and quick to make.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { authorizeInbound } from './inbound.ts'
import { effectiveMode, syntheticPolicy, type PeerAuthentication } from './peer-authentication.ts'
import { namedPorts, sampleNode } from './policy-samples.ts'
import { samplePolicy, sampleSource, sampleWorkload } from './samples.ts'
import { defaultSettings } from './settings.ts'
import { MeshState } from './state.ts'
import { MAX_PORTS, Tabulation, type CapturedPod, type VerdictTable } from './tabulate.ts'
import { identityOf, type Workload } from './workload.ts'

/** What policy_verdict() of bpf/lib/policies.h finds in such a table. */
function lookUp(table: VerdictTable, client: string, port: number): 'allow' | 'deny' | 'agent' {
  const { head } = table
  if (head === 'allow' || head === 'deny' || head === 'agent') return head
  const asker = head === 'by_client' ? client : undefined
  const row = (wanted: number | undefined) =>
    table.rows.find((one) => one.client === asker && one.port === wanted)?.verdict
  return row(port) ?? row(undefined) ?? 'agent'
}

function pod(name: string, given: Partial<Workload> = {}): CapturedPod {
  const workload = sampleWorkload({ name, addresses: [`10.0.0.${name.length}`], ...given })
  return { uid: name, addresses: workload.addresses, workload }
}

function tableOf(state: MeshState, pods: readonly CapturedPod[], which = 0): VerdictTable {
  return new Tabulation(state, pods).table(pods[which] as CapturedPod)
}

const strict = (given: Partial<PeerAuthentication>) => {
  const all: PeerAuthentication[] = [
    {
      namespace: 'default',
      name: 'pa',
      selector: { app: 'x' },
      mode: 'STRICT',
      portModes: {},
      source: sampleSource,
      ...given,
    },
  ]
  return syntheticPolicy(effectiveMode(all, defaultSettings, 'default', { app: 'x' }), defaultSettings)
}

describe('a table', () => {
  it('is one word without a policy', () => {
    expect(tableOf(new MeshState(), [pod('x'), pod('yy')])).toEqual({ head: 'allow', rows: [], udpRefused: [] })
  })

  it('is one word under STRICT: neighbours are authenticated', () => {
    const state = new MeshState()
    const policy = strict({})
    if (policy) state.setPolicy(policy)
    const x = pod('x', { authorizationPolicies: [`${policy?.namespace}/${policy?.name}`] })
    expect(tableOf(state, [x, pod('yy')])).toMatchObject({ head: 'allow', rows: [] })
  })

  it('is denial to all while a policy is not known', () => {
    expect(tableOf(new MeshState(), [pod('x', { authorizationPolicies: ['default/later'] })])).toMatchObject({
      head: 'deny',
    })
  })

  it('tells ports apart where clients make no difference', () => {
    const state = new MeshState()
    state.setPolicy(samplePolicy('ALLOW', { destinationPorts: [80, 443] }))
    expect(tableOf(state, [pod('x'), pod('yy')])).toEqual({
      head: 'by_port',
      rows: [
        { client: undefined, port: undefined, verdict: 'deny' },
        { client: undefined, port: 80, verdict: 'allow' },
        { client: undefined, port: 443, verdict: 'allow' },
      ],
      udpRefused: [],
    })
  })

  it('tells clients apart, and their ports where they differ from the rest', () => {
    const state = new MeshState()
    const principals = [{ type: 'exact', value: 'cluster.local/ns/default/sa/yy' } as const]
    const to = { matches: [{ destinationPorts: [80] }] }
    state.setPolicy(samplePolicy('ALLOW', [{ clauses: [{ matches: [{ principals }] }, to] }]))
    expect(tableOf(state, [pod('x'), pod('yy')])).toMatchObject({
      head: 'by_client',
      rows: [
        { client: 'x', port: undefined, verdict: 'deny' },
        { client: 'yy', port: undefined, verdict: 'deny' },
        { client: 'yy', port: 80, verdict: 'allow' },
      ],
    })
  })

  it('says nothing where the answer depends on the address family', () => {
    const state = new MeshState()
    state.setPolicy(samplePolicy('DENY', { sourceIps: [{ address: '10.0.0.0', length: 8 }] }))
    const pods = [pod('x', { addresses: ['10.0.0.1', 'fd00::1'] }), pod('yy', { addresses: ['10.0.0.2', 'fd00::2'] })]
    expect(tableOf(state, pods)).toMatchObject({ head: 'agent', rows: [] })
    const four = [pod('x'), pod('yy')]
    expect(tableOf(state, four)).toMatchObject({ head: 'deny' })
    // Of one port only: the others are told by name, the rest is the agent's.
    state.setPolicy(
      samplePolicy('DENY', [
        {
          clauses: [
            { matches: [{ sourceIps: [{ address: '10.0.0.0', length: 8 }] }] },
            { matches: [{ destinationPorts: [80] }] },
          ],
        },
        { clauses: [{ matches: [{ destinationPorts: [443] }] }] },
      ]),
    )
    expect(tableOf(state, pods)).toMatchObject({
      head: 'by_port',
      rows: [{ client: undefined, port: 443, verdict: 'deny' }],
    })
  })

  it('leaves to the agent who is behind a waypoint, wants tunnels, or has too many ports', () => {
    const waypoint = { hostname: 'default/wp.default.svc.cluster.local', port: 15008 }
    expect(tableOf(new MeshState(), [pod('x', { waypoint })]).head).toBe('agent')
    expect(tableOf(new MeshState(), [pod('x', { sameNode: 'tunnel' })]).head).toBe('agent')
    const state = new MeshState()
    const ports = Array.from({ length: MAX_PORTS + 1 }, (_, i) => i + 1)
    state.setPolicy(samplePolicy('ALLOW', { destinationPorts: ports }))
    expect(tableOf(state, [pod('x')]).head).toBe('agent')
  })

  it('has no row for a client that wants tunnels', () => {
    expect(tableOf(new MeshState(), [pod('x'), pod('yy', { sameNode: 'tunnel' })])).toMatchObject({
      head: 'by_client',
      rows: [{ client: 'x', port: undefined, verdict: 'allow' }],
    })
  })

  it('refuses UDP to the ports of services where plaintext is refused', () => {
    const state = new MeshState()
    const services = { 'default/svc': { 53: 5353, 80: 8080 }, 'default/other': { 1: 8080 } }
    const port = (given: Partial<PeerAuthentication>): readonly number[] => {
      const policy = strict(given)
      if (policy) state.setPolicy(policy)
      const authorizationPolicies = policy ? [`${policy.namespace}/${policy.name}`] : []
      return tableOf(state, [pod('x', { services, authorizationPolicies })]).udpRefused
    }
    expect(port({ mode: 'PERMISSIVE' })).toEqual([])
    expect(port({})).toEqual([5353, 8080])
    expect(port({ portModes: { 5353: 'PERMISSIVE' } })).toEqual([8080])
    expect(port({ mode: 'PERMISSIVE', portModes: { 5353: 'STRICT' } })).toEqual([5353])
  })

  it('agrees with the verdict of the mesh, whatever the policies, pods and connections', () => {
    const port = fc.oneof(fc.constantFrom<number>(...namedPorts), fc.integer({ min: 1, max: 65_535 }))
    const seen = { allow: 0, deny: 0, agent: 0 }
    fc.assert(
      fc.property(sampleNode(), fc.array(port, { minLength: 1, maxLength: 4 }), ({ state, pods }, ports) => {
        const tabulation = new Tabulation(state, pods)
        for (const destination of pods) {
          const table = tabulation.table(destination)
          for (const client of pods) {
            for (const wanted of ports) {
              // The kernel does not ask about it.
              if (wanted === 15_008) continue
              const said = lookUp(table, client.uid, wanted)
              seen[said]++
              if (said === 'agent') continue
              expect(destination.workload.waypoint).toBeUndefined()
              expect([client.workload.sameNode, destination.workload.sameNode]).toEqual(['direct', 'direct'])
              for (const peerAddress of client.addresses) {
                for (const address of destination.addresses) {
                  if (peerAddress.includes(':') !== address.includes(':')) continue
                  const verdict = authorizeInbound(state, destination.workload, {
                    peerAddress,
                    identity: identityOf(client.workload),
                    address,
                    port: wanted,
                  })
                  expect(said, `${peerAddress} to ${address}:${wanted}: ${verdict.reason}`).toBe(
                    verdict.allowed ? 'allow' : 'deny',
                  )
                }
              }
            }
          }
        }
      }),
      { numRuns: 400 },
    )
    // It is not held by saying nothing.
    const all = seen.allow + seen.deny + seen.agent
    for (const answer of ['allow', 'deny', 'agent'] as const) expect(seen[answer] / all, answer).toBeGreaterThan(0.1)
  })
})

describe('a node of 110 pods', () => {
  it('shares rows among pods under the same policies, and answers among clients of one identity', () => {
    const state = new MeshState()
    const principals = [{ type: 'exact', value: 'cluster.local/ns/default/sa/sa3' } as const]
    state.setPolicy(samplePolicy('ALLOW', { principals }))
    const pods = Array.from({ length: 110 }, (_, i) =>
      pod(`pod${i}`, { addresses: [`10.0.1.${i}`], serviceAccount: `sa${i % 10}` }),
    )
    const tabulation = new Tabulation(state, pods)
    const tables = pods.map((one) => tabulation.table(one))
    expect(new Set(tables.map(({ rows }) => rows)).size).toBe(1)
    expect(tables[0]).toMatchObject({ head: 'by_client' })
    expect(tables[0]?.rows.length).toBe(110)
    expect(lookUp(tables[0] as VerdictTable, 'pod13', 80)).toBe('allow')
    expect(lookUp(tables[0] as VerdictTable, 'pod14', 80)).toBe('deny')
  })
})
