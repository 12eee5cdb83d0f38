import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { SignJWT, type JWTPayload } from 'jose'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { JwtAuthenticator } from './jwt.ts'

const NOW = Date.UTC(2030, 0, 1)

describe('the JWT authenticator', () => {
  let folder: string
  let keyFile: string
  let signer: KeyObject
  const clock = new ManualClock(NOW)

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-jwt-'))
    keyFile = join(folder, 'keys.jwks')
    signer = writeKey()
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  /** A new key pair; its public half becomes the only key in the file. */
  function writeKey(): KeyObject {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    writeFileSync(keyFile, JSON.stringify({ keys: [publicKey.export({ format: 'jwk' })] }))
    return privateKey
  }

  const good: JWTPayload = {
    aud: 'istio-ca',
    sub: 'system:serviceaccount:shop:waypoint',
    exp: NOW / 1_000 + 600,
    'kubernetes.io': {
      namespace: 'shop',
      serviceaccount: { name: 'waypoint' },
      pod: { name: 'w-1', uid: 'u' },
      node: { name: 'n1' },
    },
  }
  const sign = (claims: JWTPayload, key = signer): Promise<string> =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256' }).sign(key)

  it('reads who the caller is and what the token is bound to', async () => {
    const authenticator = new JwtAuthenticator({ keyFile, clock })
    expect(await authenticator.authenticate(await sign(good))).toEqual({
      namespace: 'shop',
      serviceAccount: 'waypoint',
      pod: 'w-1',
      node: 'n1',
    })
  })

  it('refuses, by name, every way a token can be wrong', async () => {
    const authenticator = new JwtAuthenticator({ keyFile, clock })
    const { exp: _exp, ...forever } = good
    const cases: [string, string][] = [
      [await sign({ ...good, exp: NOW / 1_000 - 60 }), 'the token expired at 2029-12-31T23:59:00.000Z'],
      [await sign({ ...good, nbf: NOW / 1_000 + 600 }), 'not valid yet'],
      [await sign({ ...good, aud: ['a', 'b'] }), "not 'istio-ca'"],
      [await sign(forever), "claim 'exp' is missing"],
      [await sign({ ...good, sub: 'alice' }), "subject 'alice' is not a service account"],
      [await sign({ ...good, sub: 'system:serviceaccount:shop:waypoint:x' }), 'is not a service account'],
      [await sign({ ...good, sub: 'system:serviceaccount:ambit-system:ambit-agent' }), 'does not fit its subject'],
      [await sign({ ...good, 'kubernetes.io': 'x' }), 'does not fit its subject'],
      ['x'.repeat(20_000), 'longer than'],
      [unsigned(good), 'not signed with ES256'],
      [hmac(good, 'secret'), 'not signed with ES256'],
    ]
    for (const [token, message] of cases) {
      await expect(authenticator.authenticate(token), message).rejects.toMatchObject({
        code: 'CONTROL_UNAUTHENTICATED',
        message: expect.stringContaining(message) as string,
      })
    }
  })

  it('never repeats the token in its refusal, and survives any text', async () => {
    const authenticator = new JwtAuthenticator({ keyFile, clock })
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.base64String().map((part) => `${part}.${part}.${part}`),
        ),
        async (text) => {
          const error: unknown = await authenticator.authenticate(text).catch((reason: unknown) => reason)
          expect(error).toMatchObject({ code: 'CONTROL_UNAUTHENTICATED' })
          if (text.length > 8) expect((error as Error).message).not.toContain(text)
        },
      ),
    )
  })

  it('takes new keys when the file changes, and keeps the old ones while it is broken', async () => {
    const authenticator = new JwtAuthenticator({ keyFile, clock })
    const old = await sign(good)
    writeFileSync(keyFile, '{')
    utimesSync(keyFile, 1, 1)
    await expect(authenticator.authenticate(old)).resolves.toMatchObject({ namespace: 'shop' })
    const next = writeKey()
    await expect(authenticator.authenticate(await sign(good, next))).resolves.toMatchObject({ namespace: 'shop' })
    await expect(authenticator.authenticate(old)).rejects.toThrow('a key this control does not know')
  })

  it('says which file keeps it from starting', () => {
    writeFileSync(keyFile, 'nonsense')
    expect(() => new JwtAuthenticator({ keyFile, clock })).toThrow(keyFile)
  })
})

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function unsigned(claims: JWTPayload): string {
  return `${part({ alg: 'none' })}.${part(claims)}.`
}

function hmac(claims: JWTPayload, secret: string): string {
  const head = `${part({ alg: 'HS256' })}.${part(claims)}`
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
}
