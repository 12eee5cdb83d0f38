// Throw-away certificates for tests, made by the openssl command: pki/ stands above this room, and what tests TLS should
// not be made by what is tested. Must not live here: anything a program uses.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { KeyPair } from './connection.ts'

export interface TestRoot {
  readonly certificate: string
  issue(uri: string): KeyPair
}

/** A self-signed P-256 root that issues leaf certificates with one URI SAN. */
export function testRoot(name: string): TestRoot {
  const folder = mkdtempSync(join(tmpdir(), 'ambit-certs-'))
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  const read = (file: string) => readFileSync(join(folder, file), 'utf8')
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '30',
    '-keyout',
    'root.key',
    '-out',
    'root.pem',
    '-subj',
    `/O=${name}`,
  )
  let serial = 0
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return {
    certificate: read('root.pem'),
    issue(uri) {
      const id = `leaf${++serial}`
      writeFileSync(join(folder, `${id}.ext`), `subjectAltName=critical,URI:${uri}\n`)
      openssl(
        'req',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-keyout',
        `${id}.key`,
        '-out',
        `${id}.csr`,
        '-subj',
        '/',
      )
      openssl(
        'x509',
        '-req',
        '-in',
        `${id}.csr`,
        '-CA',
        'root.pem',
        '-CAkey',
        'root.key',
        '-CAcreateserial',
        '-days',
        '30',
        '-extfile',
        `${id}.ext`,
        '-out',
        `${id}.pem`,
      )
      return { certificate: read(`${id}.pem`), key: read(`${id}.key`) }
    },
  }
}
