// Whether the kernel can refuse a pod's plaintext by itself, without asking the agent: only where nothing could allow it.
import { STATIC_STRICT } from '../../mesh/peer-authentication.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'

/** 'refuse' where PeerAuthentication is STRICT on every port; 'judge' for everything that depends on more. */
export function plaintextMode(view: MeshView | undefined, workload: Workload | undefined): 'refuse' | 'judge' {
  if (!view || !workload) return 'judge'
  const key = `${view.settings.rootNamespace}/${STATIC_STRICT}`
  return workload.authorizationPolicies.includes(key) && view.policy(key) !== undefined ? 'refuse' : 'judge'
}
