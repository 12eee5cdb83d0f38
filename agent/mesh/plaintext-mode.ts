// Whether the kernel can refuse a pod's plaintext by itself, without asking the agent: only where nothing could allow it.
// Must not live here: the verdict on what it does not refuse (inbound.ts).
import { STATIC_STRICT } from './peer-authentication.ts'
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
