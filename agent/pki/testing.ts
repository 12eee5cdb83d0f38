// Certificate authorities for tests, made by OpenSSL's own program as people make theirs. Must not live here: ours (authority.ts).
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface CaOptions {
  /** As `openssl genpkey` has it. Default EC P-256. */
  readonly key?: readonly string[]
  readonly days?: number
  /** basicConstraints. */
  readonly constraints?: string
  readonly usage?: string
  readonly more?: readonly string[]
  /** As `openssl req -subj` has it. */
  readonly subject?: string
}

const P256 = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256']
export const RSA = ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048']
let count = 0

export class TestCa {
  readonly root: TestCa
  readonly certificate: string
  readonly key: string
  /** PEM, from this one up to below the root. */
  readonly intermediates: string
  readonly #folder: string
  readonly #file: string

  /** A self-signed root, or one signed by `parent`. */
  constructor(folder: string, name: string, options: CaOptions = {}, parent?: TestCa) {
    const { key = P256, days = 30, constraints = 'critical,CA:TRUE', usage = 'critical,keyCertSign,cRLSign' } = options
    this.#folder = folder
    this.#file = join(folder, `ca-${++count}`)
    const extensions = [`basicConstraints=${constraints}`, `keyUsage=${usage}`, ...(options.more ?? [])]
    openssl(['genpkey', ...key, '-out', `${this.#file}.key`])
    const subject = options.subject ?? `/O=ambit test/CN=${name}`
    openssl(['req', '-new', '-key', `${this.#file}.key`, '-subj', subject, '-out', `${this.#file}.csr`, '-utf8'])
    writeFileSync(`${this.#file}.ext`, [...extensions, 'subjectKeyIdentifier=hash'].join('\n'))
    const signer = parent
      ? ['-CA', `${parent.#file}.pem`, '-CAkey', `${parent.#file}.key`, '-CAcreateserial']
      : ['-signkey', `${this.#file}.key`]
    // prettier-ignore
    openssl(['x509', '-req', '-in', `${this.#file}.csr`, ...signer, '-days', String(days), '-sha256',
      '-extfile', `${this.#file}.ext`, '-out', `${this.#file}.pem`])
    this.certificate = readFileSync(`${this.#file}.pem`, 'utf8')
    this.key = readFileSync(`${this.#file}.key`, 'utf8')
    this.root = parent?.root ?? this
    this.intermediates = parent ? this.certificate + parent.intermediates : ''
  }

  intermediate(name: string, options: CaOptions = {}): TestCa {
    return new TestCa(this.#folder, name, options, this)
  }

  /** As Istio's Secret `cacerts` has it. */
  secretData(roots = this.root.certificate): Record<string, string> {
    return {
      'ca-cert.pem': this.certificate,
      'ca-key.pem': this.key,
      'root-cert.pem': roots,
      'cert-chain.pem': this.intermediates,
    }
  }
}

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}
