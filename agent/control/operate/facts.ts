// What is known of the running of a waypoint, for whoever writes its Gateway's status. Must not live here: conditions and their
// reasons (report/).

export interface WaypointFacts {
  readonly namespace: string
  readonly name: string
  /** Of the Gateway these are about. */
  readonly uid: string
  readonly generation: number
  /** Of its Service: cluster IPs and, where a load balancer gave some, those first; the host name where it has no address. */
  readonly addresses: readonly { readonly type: 'IPAddress' | 'Hostname'; readonly value: string }[]
  /** Replicas that are ready, of those wanted. Programmed is: some are ready, and there is an address. */
  readonly ready: number
  readonly wanted: number
  /** Why its objects are not as the Gateway wants them; those that were made before stay. */
  readonly problem?: WaypointProblem
}

export interface WaypointProblem {
  /**
   * `parameters`: of the ConfigMap it refers to (Gateway API: Accepted=False, InvalidParameters). `taken`: an object of its name
   * is somebody else's. `refused`: the API server did not take an object.
   */
  readonly kind: 'parameters' | 'taken' | 'refused'
  readonly code: string
  /** Full sentence, what happened to what. */
  readonly message: string
  readonly hint: string
}

/** Answers on the replica that leads; elsewhere nothing is known. */
export interface WaypointView {
  facts(namespace: string, name: string): WaypointFacts | undefined
  /** Hears of each Gateway whose facts changed. Returns the end of hearing. */
  onChange(listener: (namespace: string, name: string) => void): () => void
}
