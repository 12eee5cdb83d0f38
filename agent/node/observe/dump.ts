// /config_dump: everything this agent goes by, for people and for support. Never a private key: the certificate manager's
// status has none, and the admin server refuses to print one. Must not live here: serving it (telemetry/admin.ts).
import type { MeshState } from '../../mesh/state.ts'
import type { AgentParts } from './metrics.ts'

export interface DumpFacts {
  readonly version: string
  readonly node: string
  /** The flags this agent was started with. */
  readonly config: Readonly<Record<string, unknown>>
}

export function configDump(facts: DumpFacts, state: MeshState, parts: AgentParts): Record<string, unknown> {
  return {
    version: facts.version,
    node: facts.node,
    config: facts.config,
    settings: state.settings,
    workloads: [...state.workloads()],
    services: [...state.services()],
    policies: [...state.policies()],
    certificates: parts.certificates.status(),
    pods: parts.enrollment.list(),
    tunnels: parts.tunnels.status(),
    control: parts.control.status(),
    kernel: { features: parts.redirect.features, counters: parts.redirect.counters() },
  }
}
