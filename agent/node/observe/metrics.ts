// The agent's own figures beside Istio's: the kernel's counters and features, pods, tunnels, certificates, control. Read
// when scraped, kept as plain fields. Must not live here: connections (flow.ts).
import type { Certificates } from '../../pki/contract.ts'
import type { Metrics } from '../../telemetry/exposition.ts'
import type { ControlConnection } from '../../wire/contract.ts'
import type { Enrollment } from '../enroll/contract.ts'
import type { Redirect } from '../redirect/contract.ts'
import { rungOf, rungs } from '../redirect/rung.ts'
import type { Tunnels } from '../tunnel/tunnels.ts'

export interface AgentParts {
  readonly redirect: Redirect
  readonly tunnels: Tunnels
  readonly enrollment: Enrollment
  readonly certificates: Certificates
  readonly control: ControlConnection
}

export function agentMetrics(metrics: Metrics, parts: AgentParts): void {
  const kernel = metrics.counter({
    name: 'ambit_kernel_events_total',
    help: 'What the kernel programs did, by outcome; dropped.* names the reason.',
    labels: ['event'],
  })
  const features = metrics.gauge({
    name: 'ambit_kernel_feature',
    help: '1 where the kernel has the feature.',
    labels: ['feature'],
  })
  const rung = metrics.gauge({
    name: 'ambit_kernel_rung',
    help: '1 at the rung of features this kernel stands on.',
    labels: ['rung'],
  })
  const pods = metrics.gauge({
    name: 'ambit_pods',
    help: 'Pods of this node by phase; missing: to be captured and not found.',
    labels: ['phase'],
  })
  const open = metrics.gauge({ name: 'istio_tcp_sockets_open', help: 'Connections carried now.', labels: ['reporter'] })
  const sessions = metrics.gauge({ name: 'ambit_tunnels_open', help: 'Tunnels this node opened.', labels: [] })
  const waiting = metrics.gauge({
    name: 'ambit_connections_waiting',
    help: 'Connections that wait for the state of their pod.',
    labels: [],
  })
  const certificates = metrics.gauge({
    name: 'ambit_certificates',
    help: 'Workload certificates held, by state.',
    labels: ['state'],
  })
  const connected = metrics.gauge({ name: 'ambit_control_connected', help: '1 while control answers.', labels: [] })
  const responses = metrics.counter({
    name: 'istio_xds_message_total',
    help: 'Responses received from control.',
    labels: ['url'],
  })
  for (const [feature, held] of Object.entries(parts.redirect.features)) features.with([feature]).value = held ? 1 : 0
  const { name: stands } = rungOf(parts.redirect.features)
  for (const name of rungs) rung.with([name]).value = name === stands ? 1 : 0
  const phases = ['captured', 'out', 'pending', 'unknown', 'missing']
  const states = ['requested', 'valid', 'renewing', 'expired']
  metrics.beforeScrape(() => {
    parts.tunnels.progress()
    for (const [event, count] of Object.entries(parts.redirect.counters())) kernel.with([event]).value = count
    for (const phase of phases) pods.with([phase]).value = 0
    for (const { phase } of parts.enrollment.list()) pods.with([phase]).value++
    pods.with(['missing']).value = parts.enrollment.missing().length
    open.with(['agent']).value = parts.tunnels.connections
    sessions.with().value = parts.tunnels.sessions
    waiting.with().value = parts.tunnels.waiting
    for (const state of states) certificates.with([state]).value = 0
    for (const { state } of parts.certificates.status()) certificates.with([state]).value++
    const control = parts.control.status()
    connected.with().value = control.connected ? 1 : 0
    for (const kind of control.kinds) responses.with([kind.kind]).value = kind.responses
  })
}
