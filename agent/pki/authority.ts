// The certificate authority of the mesh: a self-signed root made once and kept, or one that was given. Issues leaves for
// identities and for control's own server. The only file that uses an x509 library. Must not live here: who may have
// which identity (control/issue), where the files are told from (control/main).
import 'reflect-metadata'
import {
  createPrivateKey,
  randomBytes,
  webcrypto,
  X509Certificate as NodeCertificate,
  type KeyObject,
} from 'node:crypto'
import { chmod, mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import type { Clock } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import { canonicalIp } from '../base/ip.ts'
import type { KeyPair } from '../io/connection.ts'
import { formatIdentity, parseIdentity, type Identity } from '../mesh/identity.ts'
import { mergePem, splitPem } from './bundle.ts'
import { generateKey, keyPem } from './csr.ts'

x509.cryptoProvider.set(webcrypto as Crypto)

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** What an authority may sign with: keys by OpenSSL's name of the curve; RSA from 2 048 bits, which OpenSSL wants at its default level. */
const CURVES: Readonly<Record<string, { readonly namedCurve: string; readonly hash: string }>> = {
  prime256v1: { namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { namedCurve: 'P-521', hash: 'SHA-512' },
}
const MIN_RSA_BITS = 2_048
const SUBJECT_KEY_IDENTIFIER = '2.5.29.14'
const DAY_MS = 86_400_000
const ROOT_DAYS = 3_650
/** Clocks of nodes differ: a leaf is valid a little before it was made (Istio's grace). */
const SKEW_MS = 120_000
const SUBJECT_ALT_NAME = '2.5.29.17'

/** What control issues with; external CAs stand behind the same interface. */
export interface Authority {
  /** PEM roots for the whole mesh. */
  readonly trustBundle: string
  /** PEM chain: leaf, intermediates, trust bundle last. Rejects with CSR_INVALID. */
  issue(csr: string, identity: Identity, validitySeconds: number): Promise<readonly string[]>
  /** A certificate for control's own server, with DNS names and addresses. */
  serverCertificate(names: readonly string[], validitySeconds: number): Promise<KeyPair & { readonly notAfter: number }>
  /** Hears when it signs with another key than before, or trusts other roots. */
  onChange?(listener: () => void): void
}

/** One that signs with one key for good. */
export interface SigningAuthority extends Authority {
  /** PEM of the roots under which what it issues is valid. */
  readonly anchors: readonly string[]
  /** When the certificate that it signs with ends, in milliseconds since the epoch. */
  readonly notAfter: number
}

export interface AuthorityMaterial {
  /** PEM of the certificate that signs leaves. */
  readonly certificate: string
  /** PEM, PKCS#8 or SEC1. */
  readonly key: string
  /** PEM of the intermediates between `certificate` and a root, `certificate` first when it is one; '' for a root. */
  readonly intermediates?: string
  /** PEM roots; default `certificate`. */
  readonly roots?: string
}

/** Loads STATE/ca-key.pem and STATE/root-cert.pem, or makes them. Rejects with CA_STATE_INVALID naming the file. */
export async function openAuthority(stateDir: string, organization: string, clock: Clock): Promise<Authority> {
  const keyFile = join(stateDir, 'ca-key.pem')
  const rootFile = join(stateDir, 'root-cert.pem')
  await mkdir(stateDir, { recursive: true, mode: 0o755 })
  const [key, certificate] = await Promise.all([readIfThere(keyFile), readIfThere(rootFile)])
  if (key !== undefined && certificate !== undefined) {
    await chmod(keyFile, 0o600)
    return await authorityOf({ key, certificate }, clock, `${keyFile} and ${rootFile}`)
  }
  if (key !== undefined) {
    // The certificate is written last: a key alone is what an interrupted first start leaves. A certificate alone is not.
    return await makeRoot(stateDir, organization, clock, key)
  }
  if (certificate !== undefined) {
    throw new AmbitError('CA_STATE_INVALID', `${rootFile} is there and its key ${keyFile} is not.`, {
      hint: 'Restore the key, or remove the certificate to make a new root (every workload then needs a new certificate).',
    })
  }
  return await makeRoot(stateDir, organization, clock)
}

/** Checks that the parts fit together. Rejects with CA_STATE_INVALID. */
export async function authorityOf(material: AuthorityMaterial, clock: Clock, where: string): Promise<SigningAuthority> {
  let certificate: NodeCertificate
  let signer: Signer
  try {
    certificate = new NodeCertificate(material.certificate)
    const key = createPrivateKey(material.key)
    if (!certificate.checkPrivateKey(key)) throw new Error('the key does not belong to the certificate')
    if (!certificate.ca) throw new Error('the certificate is not that of a CA')
    signer = await signerOf(key)
  } catch (error) {
    throw unusable(where, messageOf(error), error)
  }
  if (certificate.validToDate.getTime() <= clock.now()) {
    throw new AmbitError('CA_STATE_INVALID', `The CA certificate in ${where} expired on ${certificate.validTo}.`, {
      hint: 'Put the next one in its place; with a state folder: remove it and its key to make a new root.',
    })
  }
  const anchors = anchorsOf(certificate, material)
  if (anchors.length === 0)
    throw unusable(where, 'none of its roots has signed its certificate, or the chain between them')
  return new LocalAuthority(material, signer, anchors, clock)
}

function unusable(where: string, why: string, cause?: unknown): AmbitError {
  return new AmbitError('CA_STATE_INVALID', `The certificate authority in ${where} cannot be used: ${why}.`, {
    hint: 'All must be PEM and fit together; the key must be RSA from 2048 bits or EC P-256, P-384 or P-521.',
    cause,
  })
}

/** The roots, as PEM, under which what it issues is valid: those that signed it, directly or over its intermediates. */
function anchorsOf(
  certificate: NodeCertificate,
  { roots, intermediates, certificate: own }: AuthorityMaterial,
): string[] {
  const certificates = (pem: string): NodeCertificate[] => splitPem(pem).map((one) => new NodeCertificate(one))
  const above = certificates(intermediates ?? '')
  const chain = [certificate]
  // Each step takes one that is not in the chain yet: it ends.
  for (;;) {
    const top = chain.at(-1)!
    const next = above.find(
      (one) => signed(one, top) && !chain.some(({ fingerprint256 }) => fingerprint256 === one.fingerprint256),
    )
    if (!next) break
    chain.push(next)
  }
  return certificates(roots ?? own)
    .filter((root) => chain.some((one) => one.fingerprint256 === root.fingerprint256 || signed(root, one)))
    .map((root) => mergePem(root.toString()))
}

function signed(issuer: NodeCertificate, certificate: NodeCertificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

/** Node's, and the library's, names of it. */
interface SigningAlgorithm {
  readonly name: string
  readonly hash: string
  readonly namedCurve: string
}

interface Signer {
  readonly key: CryptoKey
  readonly algorithm: SigningAlgorithm
}

/** Throws for a kind of key that leaves are not signed with. */
async function signerOf(key: KeyObject): Promise<Signer> {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  const curve = CURVES[details?.namedCurve ?? '']
  const algorithm: SigningAlgorithm | undefined =
    type === 'ec' && curve
      ? { name: 'ECDSA', ...curve }
      : type === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS
        ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', namedCurve: '' }
        : undefined
  if (!algorithm) {
    const size = details?.modulusLength ?? details?.namedCurve
    throw new Error(`its key is ${type ?? 'of no known kind'}${size === undefined ? '' : ` (${size})`}`)
  }
  const bytes = new Uint8Array(key.export({ type: 'pkcs8', format: 'der' }))
  return { key: (await webcrypto.subtle.importKey('pkcs8', bytes, algorithm, false, ['sign'])) as CryptoKey, algorithm }
}

/** When a certificate ends, in milliseconds since the epoch. Throws for what is none. */
export function certificateEnds(pem: string): number {
  return new NodeCertificate(pem).validToDate.getTime()
}

/** Why a server cannot show this certificate to clients that trust `roots` (PEM) and know it by `names`; undefined when it can. */
export function serverFault(
  { certificate, key, roots }: { readonly certificate: string; readonly key: string; readonly roots: string },
  names: readonly string[],
): string | undefined {
  try {
    const leaf = new NodeCertificate(certificate)
    if (!leaf.checkPrivateKey(createPrivateKey(key))) return 'the key is not that of the certificate'
    const issuers = splitPem(roots).map((one) => new NodeCertificate(one))
    if (!issuers.some((one) => leaf.checkIssued(one) && leaf.verify(one.publicKey)))
      return 'no authority that is told to clients has signed it'
    const missing = names.find((name) => !leaf.checkHost(name) && !leaf.checkIP(name))
    return missing === undefined ? undefined : `it is not for ${missing}`
  } catch (error) {
    return messageOf(error)
  }
}

async function makeRoot(stateDir: string, organization: string, clock: Clock, oldKey?: string): Promise<Authority> {
  const { key, certificate } = await newRoot(organization, clock, oldKey)
  await writeWhole(join(stateDir, 'ca-key.pem'), key, 0o600)
  await writeWhole(join(stateDir, 'root-cert.pem'), certificate, 0o644)
  return await authorityOf({ key, certificate }, clock, stateDir)
}

/** A self-signed root of ten years, as PEM; of `oldKey` when that is given. */
export async function newRoot(
  organization: string,
  clock: Clock,
  oldKey?: string,
): Promise<{ readonly key: string; readonly certificate: string }> {
  const key = oldKey ?? keyPem((await generateKey()).privateKey)
  const privateKey = await importKey(key)
  const publicKey = await publicHalf(privateKey)
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ O: [organization] }],
    notBefore: new Date(clock.now() - SKEW_MS),
    notAfter: new Date(clock.now() + ROOT_DAYS * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys: { privateKey, publicKey },
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  })
  return { key, certificate: `${root.toString('pem')}\n` }
}

class LocalAuthority implements SigningAuthority {
  readonly trustBundle: string
  readonly anchors: readonly string[]
  readonly notAfter: number
  readonly #issuer: x509.X509Certificate
  readonly #intermediates: string
  readonly #signer: Signer
  readonly #clock: Clock

  constructor(material: AuthorityMaterial, signer: Signer, anchors: readonly string[], clock: Clock) {
    this.anchors = anchors
    this.trustBundle = mergePem(material.roots ?? material.certificate)
    this.#issuer = new x509.X509Certificate(material.certificate)
    this.#intermediates = mergePem(material.intermediates ?? '')
    this.notAfter = this.#issuer.notAfter.getTime()
    this.#signer = signer
    this.#clock = clock
  }

  async issue(csr: string, identity: Identity, validitySeconds: number): Promise<readonly string[]> {
    const publicKey = await this.#checkRequest(csr, identity)
    const name = new x509.SubjectAlternativeNameExtension([{ type: 'url', value: formatIdentity(identity) }], true)
    const { leaf } = await this.#leaf(publicKey, [name], validitySeconds, '')
    return [leaf, ...(this.#intermediates ? [this.#intermediates] : []), this.trustBundle]
  }

  async serverCertificate(names: readonly string[], validitySeconds: number) {
    const { privateKey, publicKey } = await generateKey()
    const spki = publicKey.export({ type: 'spki', format: 'der' })
    const imported = await webcrypto.subtle.importKey('spki', new Uint8Array(spki), ALGORITHM, true, ['verify'])
    const alternatives = names.map((value) =>
      canonicalIp(value) === undefined ? ({ type: 'dns', value } as const) : ({ type: 'ip', value } as const),
    )
    const extension = new x509.SubjectAlternativeNameExtension(alternatives, false)
    const { leaf, notAfter } = await this.#leaf(imported as CryptoKey, [extension], validitySeconds, 'ambit-control')
    return { certificate: leaf + this.#intermediates, key: keyPem(privateKey), notAfter }
  }

  /** The request's key, after its signature and what it asks for were checked. */
  async #checkRequest(text: string, identity: Identity): Promise<CryptoKey> {
    try {
      const request = new x509.Pkcs10CertificateRequest(text)
      if (!(await request.verify())) throw new Error('its signature does not match its key')
      const { name, namedCurve } = request.publicKey.algorithm as { name: string; namedCurve?: string }
      if (name !== 'ECDSA' || namedCurve !== 'P-256') throw new Error(`its key is ${namedCurve ?? name}, not P-256`)
      const extension = request.extensions.find(({ type }) => type === SUBJECT_ALT_NAME)
      if (extension) {
        // By type the library answers null for a request: read from the raw extension.
        const { items } = new x509.SubjectAlternativeNameExtension(extension.rawData).names
        const [only] = items
        if (items.length !== 1 || only?.type !== 'url') throw new Error('it must ask for exactly one URI name')
        if (formatIdentity(parseIdentity(only.value)) !== formatIdentity(identity)) {
          throw new Error(`it asks for ${only.value}, not for ${formatIdentity(identity)}`)
        }
      }
      return await request.publicKey.export()
    } catch (error) {
      throw new AmbitError('CSR_INVALID', `The signing request cannot be used: ${messageOf(error)}`, { cause: error })
    }
  }

  async #leaf(publicKey: CryptoKey, names: x509.Extension[], validitySeconds: number, subject: string) {
    const now = this.#clock.now()
    const notAfter = Math.min(now + validitySeconds * 1_000, this.notAfter)
    if (notAfter <= now)
      throw new AmbitError('CA_STATE_INVALID', `The CA certificate ended on ${new Date(this.notAfter).toISOString()}.`)
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: subject === '' ? [] : [{ CN: [subject] }],
      // As it stands there, not as a text of it: names are compared by their encoding.
      issuer: this.#issuer.subjectName,
      notBefore: new Date(now - SKEW_MS),
      notAfter: new Date(notAfter),
      signingAlgorithm: this.#signer.algorithm,
      publicKey,
      signingKey: this.#signer.key,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth], false),
        await this.#authorityKey(),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        ...names,
      ],
    })
    return { leaf: `${certificate.toString('pem')}\n`, notAfter }
  }

  /** The issuer's own identifier, however it was made: with another one OpenSSL does not find the issuer. */
  async #authorityKey(): Promise<x509.Extension> {
    const own = this.#issuer.extensions.find(({ type }) => type === SUBJECT_KEY_IDENTIFIER)
    if (!own) return await x509.AuthorityKeyIdentifierExtension.create(this.#issuer.publicKey)
    return new x509.AuthorityKeyIdentifierExtension(new x509.SubjectKeyIdentifierExtension(own.rawData).keyId)
  }
}

/** 127 random bits: positive, and never the same twice. */
function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

async function importKey(pkcs8Pem: string): Promise<CryptoKey> {
  const bytes = createPrivateKey(pkcs8Pem).export({ type: 'pkcs8', format: 'der' })
  return (await webcrypto.subtle.importKey('pkcs8', new Uint8Array(bytes), ALGORITHM, true, ['sign'])) as CryptoKey
}

async function publicHalf(privateKey: CryptoKey): Promise<CryptoKey> {
  const { d: _private, ...jwk } = await webcrypto.subtle.exportKey('jwk', privateKey)
  const key = await webcrypto.subtle.importKey('jwk', { ...jwk, key_ops: ['verify'] }, ALGORITHM, true, ['verify'])
  return key as CryptoKey
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new AmbitError('CA_STATE_INVALID', `${file} cannot be read: ${messageOf(error)}`, { cause: error })
  }
}

/** Whole or not at all. */
async function writeWhole(file: string, text: string, mode: number): Promise<void> {
  const handle = await open(`${file}.new`, 'w', mode)
  try {
    await handle.writeFile(text)
    await handle.chmod(mode)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(`${file}.new`, file)
}
