// The sandbox's stand-in for Kubernetes' service-account tokens: ES256, the claims of a projected token, a day long. Only
// the public half of the key leaves this process (for control's --token-keys). Must not live here: who gets which.
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey } from 'jose'

/** Seconds; kubelet's projected tokens for Istio live 12 hours, a day outlives any sandbox session's sleep. */
const LIFETIME_S = 86_400
const ISSUER = 'ambit-sandbox'
const AUDIENCE = 'istio-ca'
const KEY_ID = 'sandbox'

export interface TokenSubject {
  readonly namespace: string
  readonly serviceAccount: string
  readonly pod?: { readonly name: string; readonly uid: string }
  readonly node?: string
}

/** Writes a file whole or not at all: under another name first. */
export function writeWhole(file: string, text: string, mode: number): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const draft = join(dirname(file), `.${randomUUID()}`)
  writeFileSync(draft, text, { mode })
  chmodSync(draft, mode)
  renameSync(draft, file)
}

export class TokenIssuer {
  readonly #key: CryptoKey

  private constructor(key: CryptoKey) {
    this.#key = key
  }

  /** Makes a key and writes its public half as a JWKS. */
  static async create(jwksFile: string): Promise<TokenIssuer> {
    const { privateKey, publicKey } = await generateKeyPair('ES256')
    const jwk = { ...(await exportJWK(publicKey)), kid: KEY_ID, alg: 'ES256', use: 'sig' }
    writeWhole(jwksFile, JSON.stringify({ keys: [jwk] }), 0o644)
    return new TokenIssuer(privateKey)
  }

  /** Signs a token and writes it, mode 0600. `lifetime` in seconds. */
  async write(file: string, subject: TokenSubject, lifetime = LIFETIME_S): Promise<void> {
    const { namespace, serviceAccount, pod, node } = subject
    const token = await new SignJWT({
      'kubernetes.io': {
        namespace,
        serviceaccount: { name: serviceAccount },
        ...(pod ? { pod } : {}),
        ...(node ? { node: { name: node } } : {}),
      },
    })
      .setProtectedHeader({ alg: 'ES256', kid: KEY_ID })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject(`system:serviceaccount:${namespace}:${serviceAccount}`)
      .setIssuedAt()
      .setNotBefore('0s')
      .setExpirationTime(`${lifetime}s`)
      .setJti(randomUUID())
      .sign(this.#key)
    writeWhole(file, token, 0o600)
  }
}

/** Milliseconds after which a token is written anew. */
export const TOKEN_REFRESH_MS = (LIFETIME_S * 1000) / 2
