// /status: how this agent and each of its pods stand, for `ambit status`: the answer is plain JSON, and only ever grows.
// Must not live here: serving it (telemetry/admin.ts), showing it (cli/).
import type { Clock } from '../../base/clock.ts'
import type { CertificateStatus } from '../../pki/contract.ts'
import { agentKinds, type KindStatus } from '../../wire/contract.ts'
import { heldInventory, inventoryDigest, type InventoryDigest } from '../../wire/inventory.ts'
import type { Prover } from '../prove/prover.ts'
import type { KubeletState } from '../redirect/checks.ts'
import { rungOf, type Rung } from '../redirect/rung.ts'
import type { NodeRedirect } from '../redirect/contract.ts'
import type { TableSync } from '../tables/sync.ts'
import type { AgentParts } from './metrics.ts'

export interface PodStatusReport {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly addresses: readonly string[]
  /** captured, out, pending, unknown; missing: to be captured, and not found on the node */
  readonly phase: string
  readonly reason: string
  /** Only of captured pods, from here on. */
  readonly protected?: boolean
  /** Seconds since the pod was last proved to be protected; null before the first time. */
  readonly provedSeconds?: number | null
  /** What is wrong, '' if nothing is known to be. */
  readonly problem?: string
  readonly repairs?: number
  /** Plaintext from outside: refused by the kernel, or judged by policy. */
  readonly plaintext?: 'refuse' | 'judge'
  readonly identity?: string
  /** Carried by this agent now. */
  readonly connections?: number
  readonly tunnels?: number
}

export interface AgentStatusReport {
  readonly version: string
  readonly node: string
  /** False once a newer agent has taken this node over. */
  readonly leads: boolean
  readonly control: {
    readonly connected: boolean
    /** Milliseconds since the epoch of its last word; 0: none yet. */
    readonly lastResponse: number
    readonly rejected: KindStatus['rejected']
  }
  /** What is in force, to compare with what control has. */
  readonly config: InventoryDigest
  /** Without keys. */
  readonly certificates: readonly CertificateStatus[]
  readonly kernel: Rung & { readonly tablesSynced: boolean }
  readonly kubelet: KubeletState
  readonly pods: readonly PodStatusReport[]
}

export interface StatusParts extends Omit<AgentParts, 'redirect'> {
  readonly redirect: NodeRedirect
  readonly prover: Prover
  readonly tables: TableSync
  readonly clock: Clock
}

interface Named {
  readonly namespace: string
  readonly name: string
}

function byName(a: Named, b: Named): number {
  return a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name)
}

export function agentStatus(facts: { version: string; node: string }, parts: StatusParts): AgentStatusReport {
  const { redirect, prover, tables, tunnels, enrollment, control, clock } = parts
  const proofs = new Map(prover.status().map((proof) => [proof.uid, proof]))
  const carried = new Map(tunnels.status().map((one) => [one.uid, one]))
  const registered = enrollment.list().map(({ pod, phase, reason }): PodStatusReport => {
    const { namespace, name, uid, addresses } = pod
    const base = { namespace, name, uid, addresses, phase, reason }
    const proof = proofs.get(uid)
    const tunnel = carried.get(uid)
    return {
      ...base,
      ...(proof && {
        protected: proof.protected,
        provedSeconds: proof.provedAt === undefined ? null : Math.max(0, clock.now() - proof.provedAt) / 1000,
        problem: proof.problem,
        repairs: proof.repairs,
      }),
      ...(tunnel && {
        plaintext: tunnel.plaintext,
        identity: tunnel.identity,
        connections: tunnel.connections,
        tunnels: tunnel.tunnelsIn,
      }),
    }
  })
  const { connected, lastResponse, kinds } = control.status()
  const missing = enrollment.missing().map((pod): PodStatusReport => ({ ...pod, phase: 'missing' }))
  return {
    version: facts.version,
    node: facts.node,
    leads: redirect.leads(),
    control: { connected, lastResponse, rejected: kinds.flatMap(({ rejected }) => rejected) },
    config: inventoryDigest(heldInventory(control, agentKinds)),
    certificates: parts.certificates.status(),
    kernel: { ...rungOf(redirect.features), tablesSynced: tables.status().synced },
    kubelet: redirect.kubelet,
    pods: [...registered, ...missing].toSorted(byName),
  }
}
