// Making a key and the signing request for an identity, in Istio's form: P-256, empty subject, one critical URI name.
// Must not live here: reading requests (authority.ts), keeping keys (manager.ts).
import { generateKeyPair, sign, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import { der, oid, pem, TAG } from './der.ts'

export interface KeyAndRequest {
  /** PEM, PKCS#8. */
  readonly key: string
  /** PEM. */
  readonly csr: string
}

const EXTENSION_REQUEST = oid('1.2.840.113549.1.9.14')
const SUBJECT_ALT_NAME = oid('2.5.29.17')
const ECDSA_WITH_SHA256 = der(TAG.sequence, oid('1.2.840.10045.4.3.2'))

const generate = promisify(generateKeyPair)

/** A new P-256 key; generated off the main thread. */
export async function generateKey(): Promise<{ privateKey: KeyObject; publicKey: KeyObject }> {
  return await generate('ec', { namedCurve: 'prime256v1' })
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** RFC 2986. */
export async function makeRequest(identity: Identity): Promise<KeyAndRequest> {
  const { privateKey, publicKey } = await generateKey()
  const name = der(TAG.uri, Buffer.from(formatIdentity(identity), 'ascii'))
  const extension = der(
    TAG.sequence,
    SUBJECT_ALT_NAME,
    der(TAG.boolean, Buffer.of(0xff)),
    der(TAG.octetString, der(TAG.sequence, name)),
  )
  const attribute = der(TAG.sequence, EXTENSION_REQUEST, der(TAG.set, der(TAG.sequence, extension)))
  const info = der(
    TAG.sequence,
    der(TAG.integer, Buffer.of(0)),
    der(TAG.sequence),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(TAG.context0, attribute),
  )
  const signature = sign('sha256', info, privateKey)
  const request = der(TAG.sequence, info, ECDSA_WITH_SHA256, der(TAG.bitString, Buffer.of(0), signature))
  return { key: keyPem(privateKey), csr: pem('CERTIFICATE REQUEST', request) }
}
