// Who a client of control is, proved by its token. One interface: JWTs signed for a sandbox (jwt.ts) today, Kubernetes'
// TokenReview behind the same one later. Must not live here: what a caller may have (authorize.ts).

/** A service account with the pod and node its token is bound to. */
export interface Caller {
  readonly namespace: string
  readonly serviceAccount: string
  /** '' when the token is not bound to one. */
  readonly pod: string
  readonly node: string
}

export interface Authenticator {
  /** Rejects with AmbitError CONTROL_UNAUTHENTICATED that says what is wrong with the token, never the token itself. */
  authenticate(token: string): Promise<Caller>
}

/** `namespace/serviceAccount (pod p on node n)`. */
export function describeCaller(caller: Caller): string {
  const pod = caller.pod ? `pod ${caller.pod}` : ''
  const node = caller.node ? `node ${caller.node}` : ''
  const place = [pod, node].filter((part) => part !== '').join(' on ')
  return `${caller.namespace}/${caller.serviceAccount}${place ? ` (${place})` : ''}`
}
