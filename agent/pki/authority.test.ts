import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import type { Identity } from '../mesh/identity.ts'
import { openAuthority } from './authority.ts'
import { mergePem, splitPem } from './bundle.ts'
import { makeRequest } from './csr.ts'
import { oid } from './der.ts'
import { peerIdentity } from './peer-identity.ts'

const frontend: Identity = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'frontend' }

describe('the certificate authority', () => {
  let state: string
  beforeEach(async () => {
    state = await mkdtemp(join(tmpdir(), 'ambit-ca-'))
  })
  afterEach(() => rm(state, { recursive: true, force: true }))

  const open = () => openAuthority(state, 'cluster.local', systemClock)

  it('issues a leaf that OpenSSL accepts under the root, with the identity as its only name', async () => {
    const authority = await open()
    const { csr, key } = await makeRequest(frontend)
    const [leaf = '', trust = ''] = await authority.issue(csr, frontend, 86_400)
    await writeFile(join(state, 'leaf.pem'), leaf)
    const verdict = execFileSync('openssl', [
      'verify',
      '-x509_strict',
      '-CAfile',
      join(state, 'root-cert.pem'),
      join(state, 'leaf.pem'),
    ])
    expect(verdict.toString()).toContain('OK')
    const text = execFileSync('openssl', ['x509', '-in', join(state, 'leaf.pem'), '-noout', '-text']).toString()
    expect(text).toContain(
      'X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/frontend',
    )
    expect(text).toMatch(/Subject:\s*\n/)
    const certificate = new X509Certificate(leaf)
    expect(peerIdentity([certificate.raw])).toEqual(frontend)
    // Read once, known again by its bytes wherever they lie; one bit of difference is another certificate.
    const elsewhere = new Uint8Array([0, 0, ...certificate.raw]).subarray(2)
    expect(peerIdentity([elsewhere])).toBe(peerIdentity([certificate.raw]))
    elsewhere[0] = 0
    expect(() => peerIdentity([elsewhere])).toThrow('cannot be read')
    expect(certificate.checkIssued(new X509Certificate(trust))).toBe(true)
    expect(key).toContain('PRIVATE KEY')
    const life = certificate.validToDate.getTime() - Date.now()
    expect(Math.abs(life - 86_400_000)).toBeLessThan(60_000)
  })

  it('makes requests that OpenSSL can read and verify', async () => {
    const { csr } = await makeRequest(frontend)
    await writeFile(join(state, 'csr.pem'), csr)
    const text = execFileSync('openssl', ['req', '-in', join(state, 'csr.pem'), '-noout', '-text', '-verify'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    }).toString()
    expect(text).toContain('URI:spiffe://cluster.local/ns/shop/sa/frontend')
    expect(text).toContain('prime256v1')
  })

  it('keeps its root over a restart, the key readable by its owner only', async () => {
    const first = await open()
    expect((await stat(join(state, 'ca-key.pem'))).mode & 0o777).toBe(0o600)
    expect((await stat(join(state, 'root-cert.pem'))).mode & 0o777).toBe(0o644)
    const second = await open()
    expect(second.trustBundle).toBe(first.trustBundle)
  })

  it('goes on after a first start that was cut between key and certificate', async () => {
    await open()
    const key = await readFile(join(state, 'ca-key.pem'), 'utf8')
    await rm(join(state, 'root-cert.pem'))
    await open()
    expect(await readFile(join(state, 'ca-key.pem'), 'utf8')).toBe(key)
  })

  it('refuses a root without its key, and a key that is not its', async () => {
    await open()
    await rm(join(state, 'ca-key.pem'))
    await expect(open()).rejects.toMatchObject({ code: 'CA_STATE_INVALID' })
    const other = await mkdtemp(join(tmpdir(), 'ambit-ca-'))
    await openAuthority(other, 'x', systemClock)
    await writeFile(join(state, 'ca-key.pem'), await readFile(join(other, 'ca-key.pem')))
    await rm(other, { recursive: true })
    await expect(open()).rejects.toThrow('does not belong')
  })

  it('refuses requests for another name, with a broken signature, or that are none', async () => {
    const authority = await open()
    const { csr } = await makeRequest({ ...frontend, serviceAccount: 'backend' })
    await expect(authority.issue(csr, frontend, 60)).rejects.toThrow(
      'it asks for spiffe://cluster.local/ns/shop/sa/backend',
    )
    const bytes = Buffer.from(csr.replace(/-----[A-Z ]+-----/g, ''), 'base64')
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    const broken = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
    await expect(authority.issue(broken, frontend, 60)).rejects.toMatchObject({ code: 'CSR_INVALID' })
    await expect(authority.issue('hello', frontend, 60)).rejects.toMatchObject({ code: 'CSR_INVALID' })
  })

  it('answers any mangled request with a refusal or a certificate for the identity that was allowed', async () => {
    const authority = await open()
    const { csr } = await makeRequest(frontend)
    const bytes = Buffer.from(csr.replace(/-----[A-Z ]+-----/g, ''), 'base64')
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 }), async (at, value) => {
        const mangled = Buffer.from(bytes)
        mangled[at] = value
        const text = `-----BEGIN CERTIFICATE REQUEST-----\n${mangled.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
        try {
          const [leaf = ''] = await authority.issue(text, frontend, 60)
          expect(peerIdentity([new X509Certificate(leaf).raw])).toEqual(frontend)
        } catch (error) {
          expect(error).toMatchObject({ code: 'CSR_INVALID' })
        }
      }),
      { numRuns: 150 },
    )
  })

  it('refuses keys that are not P-256', async () => {
    const authority = await open()
    const rsa = join(state, 'rsa.pem')
    execFileSync(
      'openssl',
      ['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', join(state, 'k'), '-out', rsa, '-subj', '/'],
      { stdio: 'ignore' },
    )
    await expect(authority.issue(await readFile(rsa, 'utf8'), frontend, 60)).rejects.toThrow('not P-256')
  })

  it('never issues beyond the life of its root', async () => {
    const authority = await open()
    const { csr } = await makeRequest(frontend)
    const [leaf = ''] = await authority.issue(csr, frontend, 100 * 365 * 86_400)
    expect(new X509Certificate(leaf).validToDate.getTime()).toBe(
      new X509Certificate(authority.trustBundle).validToDate.getTime(),
    )
  })

  it('names control in its server certificate', async () => {
    const authority = await open()
    const { certificate } = await authority.serverCertificate(['control.ambit-system.svc', '10.0.0.1', '::1'], 3_600)
    expect(new X509Certificate(certificate).subjectAltName).toBe(
      'DNS:control.ambit-system.svc, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1',
    )
    expect(() => peerIdentity([new X509Certificate(certificate).raw])).toThrow('not one SPIFFE id')
  })

  it('does not take a CA for a peer, nor no certificate, nor bytes', async () => {
    const authority = await open()
    expect(() => peerIdentity([new X509Certificate(authority.trustBundle).raw])).toThrow('that of a CA')
    expect(() => peerIdentity([])).toThrow('no certificate')
    expect(() => peerIdentity([Uint8Array.of(1)])).toThrow('cannot be read')
  })
})

describe('peer certificates made by others', () => {
  it('are refused unless they carry exactly one SPIFFE id', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ambit-san-'))
    const read = async (san: string) => {
      execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'ec',
          '-pkeyopt',
          'ec_paramgen_curve:P-256',
          '-nodes',
          '-keyout',
          join(folder, 'k'),
          '-out',
          join(folder, 'c'),
          '-subj',
          '/',
          '-addext',
          `subjectAltName=${san}`,
          '-addext',
          'basicConstraints=critical,CA:FALSE',
        ],
        { stdio: 'ignore' },
      )
      return peerIdentity([new X509Certificate(await readFile(join(folder, 'c'))).raw])
    }
    expect(await read('URI:spiffe://td/ns/a/sa/b')).toEqual({ trustDomain: 'td', namespace: 'a', serviceAccount: 'b' })
    for (const san of [
      'URI:spiffe://td/ns/a/sa/b,URI:spiffe://td/ns/a/sa/c',
      'URI:spiffe://td/ns/a/sa/b,DNS:x',
      'DNS:x',
      'DNS:URI:spiffe://td/ns/a/sa/b',
      'URI:spiffe://td/ns/a/sa/b/extra',
      'URI:spiffe://td/ns//sa/b',
      'URI:https://td/ns/a/sa/b',
      'URI:spiffe://td/ns/a/sa/b%00',
    ]) {
      await expect(read(san), san).rejects.toMatchObject({ code: 'PEER_IDENTITY_INVALID' })
    }
    await rm(folder, { recursive: true })
  })
})

describe('PEM bundles', () => {
  it('keep each certificate once and drop what is none', () => {
    const a = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'
    const b = '-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n'
    expect(mergePem(`x\n${a}${b}`, `${b}junk`)).toBe(a + b)
    expect(splitPem('-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----')).toEqual([])
  })

  it('never throw, whatever the text', () => {
    fc.assert(fc.property(fc.string(), (text) => Array.isArray(splitPem(text))))
  })
})

it('encodes object identifiers with arcs of any size', () => {
  expect(oid('1.2.840.113549.1.9.14').toString('hex')).toBe('06092a864886f70d01090e')
})
