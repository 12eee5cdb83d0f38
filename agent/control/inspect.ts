// What people may ask of control about itself: how it stands, who is connected and has all that it is to have, what a client is to
// have. Plain JSON that only ever grows; no keys, no tokens. Must not live here: serving it (telemetry/admin.ts), comparing (cli/).
import { jsonRoutes, statusRoutes, type AdminRoute } from '../telemetry/admin.ts'
import { wantedAnswer } from '../wire/inventory.ts'
import type { Control } from './control.ts'
import type { Kube } from './kube.ts'

export interface ControlFacts {
  readonly version: string
  /** Pod name of this replica; '' from a folder. */
  readonly replica: string
}

/** GET /status and /config/wanted. */
export function inspectRoutes(facts: ControlFacts, control: Control, kube?: Kube): Record<string, AdminRoute> {
  return {
    ...statusRoutes(() => controlStatus(facts, control, kube)),
    ...jsonRoutes(
      '/config/wanted',
      'names and versions for ?agent=NODE or ?waypoint=NAMESPACE/NAME; one of them: &kind=K&name=N',
      (query) => wanted(control, query),
    ),
  }
}

function controlStatus({ version, replica }: ControlFacts, control: Control, kube: Kube | undefined): unknown {
  const { snapshot, store, xds, publisher, publishMs, issued, refused } = control
  const problems = { error: 0, warning: 0, info: 0 }
  for (const problem of snapshot?.problems ?? []) problems[problem.severity]++
  return {
    version,
    replica,
    ...(kube && { leads: kube.leader.leads, leader: kube.leader.holder }),
    address: control.address,
    snapshot: snapshot?.version ?? 0,
    revision: store.revision,
    publishMs,
    certificates: { issued, refused },
    problems,
    unpublished: publisher.unpublished,
    clients: Array.from(xds.clients, ({ id, node, peer, since, settled }) => ({ id, ...node, peer, since, settled })),
  }
}

function wanted(control: Control, query: URLSearchParams): unknown {
  const [agent, waypoint] = [query.get('agent'), query.get('waypoint')]
  const scope =
    agent !== null ? control.scopeOf({ agent }) : waypoint !== null ? control.scopeOf({ waypoint }) : undefined
  return scope && wantedAnswer(control.store, scope, query)
}
