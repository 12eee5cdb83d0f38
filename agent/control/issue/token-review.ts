// Tokens judged by the cluster that made them (authentication.k8s.io/v1 TokenReview): only the API server knows whether the
// pod a token is bound to still exists. Answers are kept for seconds, since an agent shows its token with every certificate it
// asks for. Must not live here: what a caller may have (authorize.ts).
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { KubeClient } from '../../kube/client.ts'
import type { Authenticator, Caller } from './authenticator.ts'
import { claimsOf, MAX_TOKEN_CHARACTERS, TOKEN_AUDIENCE } from './token.ts'

export interface TokenReviewOptions {
  readonly client: KubeClient
  readonly clock: Clock
  /** Default `istio-ca`. */
  readonly audience?: string
}

interface TokenReview {
  readonly status?: {
    readonly authenticated?: boolean
    readonly error?: string
    readonly audiences?: readonly string[]
    readonly user?: { readonly username?: string; readonly extra?: Readonly<Record<string, readonly string[]>> }
  }
}

/** A token is believed for so long after it was reviewed: a deleted pod's is refused at the latest then. Milliseconds. */
const KEEP_MS = 10_000
/** Agents and waypoints, each with one token at a time; 5 000 nodes are what Kubernetes supports. */
const MAX_KEPT = 16_384
const TIMEOUT_MS = 5_000

interface Kept {
  readonly until: number
  readonly caller: Caller
}

export class TokenReviewAuthenticator implements Authenticator {
  readonly #options: TokenReviewOptions
  /** By digest: a dump of this process's memory need not hold tokens. */
  readonly #kept = new LRUCache<string, Kept>({ max: MAX_KEPT })
  readonly #asking = new Map<string, Promise<Caller>>()

  constructor(options: TokenReviewOptions) {
    this.#options = options
  }

  /** Rejects with CONTROL_UNAUTHENTICATED, and CONTROL_UNAVAILABLE (worth a retry) when the API server does not answer. */
  async authenticate(token: string): Promise<Caller> {
    if (token === '') throw refused('there is no bearer token in the request')
    if (token.length > MAX_TOKEN_CHARACTERS)
      throw refused(`the token is longer than ${MAX_TOKEN_CHARACTERS} characters`)
    const key = createHash('sha256').update(token).digest('base64')
    const kept = this.#kept.get(key)
    if (kept && kept.until > this.#options.clock.now()) return kept.caller
    let asking = this.#asking.get(key)
    if (!asking) {
      asking = this.#review(token, key).finally(() => this.#asking.delete(key))
      this.#asking.set(key, asking)
    }
    return await asking
  }

  async #review(token: string, key: string): Promise<Caller> {
    const { client, clock, audience = TOKEN_AUDIENCE } = this.#options
    const asked = clock.now()
    let review: TokenReview
    try {
      review = await client.ask<TokenReview>({
        method: 'POST',
        path: '/apis/authentication.k8s.io/v1/tokenreviews',
        body: {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenReview',
          spec: { token, audiences: [audience] },
        },
        timeoutMs: TIMEOUT_MS,
      })
    } catch (error) {
      throw new AmbitError('CONTROL_UNAVAILABLE', `the API server could not judge the token: ${messageOf(error)}`, {
        cause: error,
      })
    }
    const { authenticated, error, user, audiences } = review.status ?? {}
    if (!authenticated || !audiences?.includes(audience)) throw refused(whyNot(token, audience, asked, error ?? ''))
    const caller = callerOf(user?.username ?? '', user?.extra ?? {})
    const expires = (claimsOf(token)?.exp ?? Infinity) * 1_000
    this.#kept.set(key, { until: Math.min(asked + KEEP_MS, expires), caller })
    return caller
  }
}

/** `system:serviceaccount:NAMESPACE:NAME`, with what the token is bound to. */
function callerOf(username: string, extra: Readonly<Record<string, readonly string[]>>): Caller {
  const [system, kind, namespace, serviceAccount, ...rest] = username.split(':')
  if (system !== 'system' || kind !== 'serviceaccount' || !namespace || !serviceAccount || rest.length > 0)
    throw refused(`the token is of ${username.slice(0, 200)}, which is not a service account`)
  const one = (name: string): string => extra[`authentication.kubernetes.io/${name}`]?.[0] ?? ''
  return { namespace, serviceAccount, pod: one('pod-name'), node: one('node-name') }
}

/**
 * The one sentence that says what is wrong. The token's own claims are read for it, unverified: they explain a refusal and
 * decide nothing.
 */
function whyNot(token: string, audience: string, now: number, said: string): string {
  const claims = claimsOf(token)
  if (!claims) return 'the token is not a signed JWT'
  if (claims.exp !== undefined && claims.exp * 1_000 <= now)
    return `the token expired at ${new Date(claims.exp * 1_000).toISOString()}`
  if (claims.aud !== undefined && !claims.aud.includes(audience))
    return `the token is for the audience ${claims.aud.join(', ').slice(0, 200)}, not '${audience}'`
  if (/invalid bearer token|unknown issuer|signature/i.test(said) || said === '')
    return `the token is not of this cluster (issuer ${claims.iss.slice(0, 200)}), or what it is bound to is gone`
  return `the API server refuses the token: ${said.slice(0, 300)}`
}

function refused(why: string): AmbitError {
  return new AmbitError('CONTROL_UNAUTHENTICATED', why)
}
