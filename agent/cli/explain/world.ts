// Resources as the state that decisions read, with what only an explanation needs beside it. Must not live here: reading
// files (config/), the explanation.
import type { Loaded } from '../../config/folder.ts'
import type { Problem } from '../../config/problem.ts'
import { resourcesOf } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import type { Translation, WaypointGateway } from '../../config/translation.ts'
import type { PeerAuthentication } from '../../mesh/peer-authentication.ts'
import { MeshState } from '../../mesh/state.ts'
import { imagine } from '../imagine.ts'

export interface World {
  readonly state: MeshState
  readonly waypoints: readonly WaypointGateway[]
  /** Oldest first. */
  readonly peerAuthentications: readonly PeerAuthentication[]
  /** What was made up because the resources do not say it. */
  readonly assumed: readonly string[]
  /** About the resources as written. */
  readonly problems: readonly Problem[]
}

/** Builds the state from what was loaded. */
export function worldOf(loaded: Loaded, systemNamespace?: string): World {
  const written = resourcesOf(loaded)
  const imagined = imagine({ ...written, ...(systemNamespace === undefined ? {} : { systemNamespace }) })
  const translation = translate(imagined.set)
  return {
    state: stateOf(translation),
    waypoints: translation.waypoints,
    peerAuthentications: translation.peerAuthentications,
    assumed: imagined.assumed,
    problems: [...written.problems, ...translation.problems],
  }
}

/** A translation as the index that decisions read. */
export function stateOf(translation: Translation): MeshState {
  const state = new MeshState()
  state.settings = translation.settings
  for (const workload of translation.workloads) state.setWorkload(workload)
  for (const service of translation.services) state.setService(service)
  for (const policy of translation.policies) state.setPolicy(policy)
  for (const route of translation.routes) state.setRoute(route)
  for (const upstream of translation.upstreams) state.setUpstream(upstream)
  return state
}
