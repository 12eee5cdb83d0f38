// What PeerAuthentication says of a pod's plaintext, for a kernel that refuses it by itself: only where nothing could allow it.
// Must not live here: the verdict on what it does not refuse (inbound.ts).
import { agentPolicies } from './applicable.ts'
import { compilePolicy } from './compile-policy.ts'
import { isSynthetic, STATIC_STRICT } from './peer-authentication.ts'
import { emptyRequest } from './request.ts'
import type { MeshView } from './state.ts'
import type { Workload } from './workload.ts'

/** The reason of what the kernel refuses, as its counter `dropped.plaintext_refused` names it. */
export const PLAINTEXT_REFUSED = 'plaintext_refused'

/** 'refuse' where PeerAuthentication is STRICT on every port; 'judge' for everything that depends on more. */
export function plaintextMode(view: MeshView | undefined, workload: Workload | undefined): 'refuse' | 'judge' {
  if (!view || !workload) return 'judge'
  const key = `${view.settings.rootNamespace}/${STATIC_STRICT}`
  return workload.authorizationPolicies.includes(key) && view.policy(key) !== undefined ? 'refuse' : 'judge'
}

/** True if PeerAuthentication is STRICT for a port of the workload, or a policy it is subject to is not known. */
export function plaintextRefused(view: MeshView, workload: Workload, port: number): boolean {
  const { policies, unknown } = agentPolicies(view, workload)
  if (unknown.length > 0) return true
  const plaintext = { ...emptyRequest(), destinationPort: port }
  return policies.some((policy) => isSynthetic(policy) && compilePolicy(policy, view.settings).match(plaintext) >= 0)
}
