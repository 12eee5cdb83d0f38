import { describe, expect, it } from 'vitest'
import type { AgentReport, ControlReport, Reports, WaypointReport } from '../mesh/report.ts'
import type { Program } from '../mesh/source.ts'
import type { Finding } from './finding.ts'
import { programFindings } from './health.ts'

const NOW = 1_000_000_000
const HOUR = 3_600_000

const program = (kind: Program['kind'], name: string): Program => ({
  kind,
  name,
  also: [],
  address: `pod/${name}`,
  ask: () => Promise.resolve({}),
})

const certificate = {
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  state: 'valid',
  notBefore: NOW - 2 * HOUR,
  notAfter: NOW + 22 * HOUR,
  error: '',
}
const web = { namespace: 'shop', name: 'web', phase: 'captured', reason: '', protected: true, problem: '' }
const agent: AgentReport = {
  version: '1',
  node: 'node-1',
  leads: true,
  control: { connected: true, rejected: [] },
  kernel: { name: 'full', lacks: [], tablesSynced: true },
  kubelet: { state: 'exempt', cgroup: '/k', detail: '' },
  certificates: [certificate],
  pods: [web],
}
const waypoint: WaypointReport = {
  version: '1',
  namespace: 'shop',
  gateway: 'wp',
  pod: 'wp-1',
  node: 'node-1',
  ready: true,
  pending: [],
  control: { connected: true },
  certificates: [certificate],
}
const control: ControlReport = {
  version: '1',
  replica: 'c-1',
  leads: true,
  revision: 7,
  problems: { error: 0, warning: 0, info: 0 },
  clients: [
    { id: 'a', type: 'agent', name: 'ambit-agent-node-1', namespace: 'ambit-system', node: 'node-1', settled: true },
    { id: 'w', type: 'waypoint', name: 'wp-1', namespace: 'shop', node: 'node-1', gateway: 'wp', settled: true },
  ],
}

function findings(change: {
  agent?: Partial<AgentReport>
  waypoint?: Partial<WaypointReport>
  control?: Partial<ControlReport>
  reports?: Partial<Reports>
}): Finding[] {
  const reports: Reports = {
    agents: [{ program: program('agent', 'node-1'), status: { ...agent, ...change.agent } }],
    control: [{ program: program('control', 'c-1'), status: { ...control, ...change.control } }],
    waypoints: [{ program: program('waypoint', 'shop/wp'), status: { ...waypoint, ...change.waypoint } }],
    ...change.reports,
  }
  return programFindings(reports, '1', NOW)
}

const wrong = (found: readonly Finding[]): string[] =>
  found.filter(({ severity }) => severity !== 'ok').map(({ severity, code, about }) => `${severity} ${code} ${about}`)

describe('how the programs of an installed Ambit stand', () => {
  it('is well where every pod is proved, certificates are valid and nothing is on its way', () => {
    const found = findings({})
    expect(wrong(found)).toEqual([])
    expect(found.map(({ message }) => message)).toEqual([
      '1 pod captured and proved, in sync; certificates: 1 valid, the oldest 2h, the next ends in 22h.',
      'wp-1 is ready and in sync; certificates: 1 valid, the oldest 2h, the next ends in 22h.',
    ])
  })

  it('names a pod that is not proved, one that waits, and each with its reason', () => {
    const pods = [
      { ...web, protected: false, problem: 'the canary failed' },
      { ...web, name: 'next', phase: 'pending', reason: 'no memory' },
      { ...web, name: 'plain', phase: 'out', reason: 'not enrolled' },
    ]
    const found = findings({ agent: { pods } })
    expect(wrong(found)).toEqual([
      'error CHECK_POD_NOT_PROVED pod/shop/web',
      'error CHECK_POD_NOT_CAPTURED pod/shop/next',
    ])
    expect(found[0]?.message).toContain('the canary failed')
    expect(found[1]?.message).toContain('no memory')
  })

  it('tells configuration that is behind, refused, or cut off', () => {
    const behind = { clients: control.clients.map((one) => ({ ...one, settled: false })) }
    expect(wrong(findings({ control: behind }))).toEqual([
      'warning CHECK_NOT_IN_SYNC node/node-1',
      'warning CHECK_NOT_IN_SYNC waypoint/shop/wp',
    ])
    expect(wrong(findings({ agent: { control: { connected: false } } }))).toEqual([
      'error CHECK_CONTROL_AWAY node/node-1',
    ])
    const rejected = [{ name: 'shop/x', reason: 'unknown field' }]
    expect(wrong(findings({ agent: { control: { connected: true, rejected } } }))).toEqual([
      'error CHECK_CONFIG_REFUSED node/node-1',
    ])
  })

  it('tells certificates that have ended or cannot be had', () => {
    const ended = { ...certificate, notAfter: NOW - 1 }
    const refused = { ...certificate, notAfter: 0, error: 'denied' }
    for (const certificates of [[ended], [refused]]) {
      expect(wrong(findings({ agent: { certificates } }))).toEqual(['error CHECK_CERTIFICATES node/node-1'])
      expect(wrong(findings({ waypoint: { certificates } }))).toEqual(['error CHECK_CERTIFICATES waypoint/shop/wp'])
    }
  })

  it('leaves an agent that was taken over out, and tells one that cannot be asked', () => {
    expect(wrong(findings({ agent: { leads: false, pods: [{ ...web, protected: false }] } }))).toEqual([])
    const agents = [{ program: program('agent', 'node-2'), error: 'CrashLoopBackOff' }]
    expect(wrong(findings({ reports: { agents } }))).toEqual(['error CHECK_UNREACHABLE agent/node-2'])
  })

  it('warns of what works less well: rung, kubelet, versions, bad resources', () => {
    expect(
      wrong(
        findings({
          agent: {
            version: '2',
            kernel: { name: 'full', lacks: [], tablesSynced: false },
            kubelet: { state: 'shared', cgroup: '', detail: 'With k3s.' },
          },
          control: { problems: { error: 1, warning: 0, info: 0 } },
        }),
      ),
    ).toEqual([
      'warning CHECK_TABLES node/node-1',
      'warning CHECK_KUBELET node/node-1',
      'warning CHECK_RESOURCES control/c-1',
      'warning CHECK_VERSIONS cluster',
    ])
  })
})
