// Tokens as JWTs signed by a known key, with the claims of Kubernetes' projected service-account tokens. The key file is
// read again when it changed. Must not live here: signing tokens (the sandbox does), what a caller may have.
import { readFileSync, statSync } from 'node:fs'
import { createLocalJWKSet, errors, jwtVerify, type JSONWebKeySet, type JWTPayload } from 'jose'
import type { Clock } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Authenticator, Caller } from './authenticator.ts'
import { MAX_TOKEN_CHARACTERS, TOKEN_AUDIENCE } from './token.ts'

export interface JwtOptions {
  /** JWKS with the public keys. */
  readonly keyFile: string
  /** Default `istio-ca`. */
  readonly audience?: string
  readonly clock: Clock
}

/** Clocks of nodes differ. */
const SKEW_SECONDS = 30

type KeySet = ReturnType<typeof createLocalJWKSet>

export class JwtAuthenticator implements Authenticator {
  readonly #options: JwtOptions
  #keys: KeySet
  #stamp: string

  /** Throws TOKEN_KEYS_UNREADABLE. */
  constructor(options: JwtOptions) {
    this.#options = options
    this.#stamp = stampOf(options.keyFile)
    this.#keys = readKeys(options.keyFile)
  }

  async authenticate(token: string): Promise<Caller> {
    const { audience = TOKEN_AUDIENCE, clock } = this.#options
    if (token === '') throw refused('there is no bearer token in the request')
    if (token.length > MAX_TOKEN_CHARACTERS)
      throw refused(`the token is longer than ${MAX_TOKEN_CHARACTERS} characters`)
    this.#reload()
    let payload: JWTPayload
    try {
      const verified = await jwtVerify(token, this.#keys, {
        algorithms: ['ES256'],
        audience,
        clockTolerance: SKEW_SECONDS,
        currentDate: new Date(clock.now()),
        requiredClaims: ['sub', 'exp'],
      })
      payload = verified.payload
    } catch (error) {
      throw refused(reasonOf(error, audience), error)
    }
    return callerOf(payload)
  }

  /** Keys change seldom and by hand: a stat per authentication is enough, a broken file leaves the old keys. */
  #reload(): void {
    const { keyFile } = this.#options
    try {
      const stamp = stampOf(keyFile)
      if (stamp === this.#stamp) return
      this.#keys = readKeys(keyFile)
      this.#stamp = stamp
    } catch {
      // Being written, or gone: the keys read last go on.
    }
  }
}

function stampOf(file: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(file)
    return `${mtimeMs} ${size} ${ino}`
  } catch {
    return ''
  }
}

function readKeys(file: string): KeySet {
  try {
    return createLocalJWKSet(JSON.parse(readFileSync(file, 'utf8')) as JSONWebKeySet)
  } catch (error) {
    throw new AmbitError('TOKEN_KEYS_UNREADABLE', `The token keys in ${file} cannot be read: ${messageOf(error)}`, {
      hint: 'It must be a JSON Web Key Set with the public keys that sign tokens.',
      cause: error,
    })
  }
}

/** One clear sentence for each way a token can be wrong. */
function reasonOf(error: unknown, audience: string): string {
  if (error instanceof errors.JWTExpired) {
    const { exp } = error.payload
    return `the token expired${exp === undefined ? '' : ` at ${new Date(exp * 1_000).toISOString()}`}`
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud') return `the token is for another audience, not '${audience}'`
    if (error.claim === 'nbf') return 'the token is not valid yet; do the clocks agree?'
    return `the token's claim '${error.claim}' is missing or wrong`
  }
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWSSignatureVerificationFailed) {
    return 'the token is signed by a key this control does not know'
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'the token is not signed with ES256'
  return 'the token is not a signed JWT'
}

function callerOf(payload: JWTPayload): Caller {
  const [system, kind, namespace, serviceAccount, ...rest] = (payload.sub ?? '').split(':')
  if (system !== 'system' || kind !== 'serviceaccount' || !namespace || !serviceAccount || rest.length > 0) {
    throw refused(`the token's subject '${(payload.sub ?? '').slice(0, 200)}' is not a service account`)
  }
  const claims = record(payload['kubernetes.io'])
  if (claims['namespace'] !== namespace || record(claims['serviceaccount'])['name'] !== serviceAccount) {
    throw refused("the token's kubernetes.io claim does not fit its subject")
  }
  return { namespace, serviceAccount, pod: nameIn(claims['pod']), node: nameIn(claims['node']) }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function nameIn(value: unknown): string {
  const name = record(value)['name']
  return typeof name === 'string' ? name : ''
}

function refused(why: string, cause?: unknown): AmbitError {
  return new AmbitError('CONTROL_UNAUTHENTICATED', why, { cause })
}
