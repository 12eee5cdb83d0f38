// The mesh's certificate authority out of a Secret: `cacerts` in Istio's layout where people bring their own, else `ambit-ca`,
// made when it is not there. A changed Secret is taken up while everything runs: new certificates come from the new one, and
// the old roots stay trusted. Must not live here: issuing (pki/authority.ts), telling pods of the roots (trust-bundle.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { KeyPair } from '../../io/connection.ts'
import { create, read } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { SECRETS } from '../../kube/mesh-kinds.ts'
import { Reflector } from '../../kube/reflector.ts'
import type { KubeObject } from '../../kube/resource.ts'
import type { Identity } from '../../mesh/identity.ts'
import { authorityOf, newRoot, type Authority, type AuthorityMaterial } from '../../pki/authority.ts'
import { mergePem } from '../../pki/bundle.ts'

/** In order: the first that is there counts. The second is Ambit's own. */
export const CA_SECRETS = ['cacerts', 'ambit-ca'] as const
type SecretName = (typeof CA_SECRETS)[number]

export interface Secret extends KubeObject {
  readonly type?: string
  /** Base64. */
  readonly data?: Readonly<Record<string, string>>
}

export interface KubeAuthorityOptions {
  readonly client: KubeClient
  readonly namespace: string
  readonly clock: Clock
  readonly log: Logger
}

interface Current {
  readonly authority: Authority
  readonly secret: SecretName
  readonly material: AuthorityMaterial
}

/** An authority that can become another while it is used. */
export class KubeAuthority implements Authority {
  readonly #options: KubeAuthorityOptions
  readonly #reflectors = new Map<SecretName, Reflector<Secret>>()
  readonly #listeners = new Set<() => void>()
  #current: Current
  #roots: string
  #turn: Promise<void> = Promise.resolve()
  /** Why the Secret as it is now is not used; '' while it is. */
  problem = ''

  private constructor(options: KubeAuthorityOptions, current: Current) {
    this.#options = options
    this.#current = current
    this.#roots = current.authority.trustBundle
  }

  /**
   * Waits until the API server answers; makes `ambit-ca` when there is no Secret. Rejects with CA_STATE_INVALID naming the
   * Secret that cannot be used.
   */
  static async open(options: KubeAuthorityOptions, organization: string): Promise<KubeAuthority> {
    const { clock, log } = options
    const backoff = new Backoff({ baseMs: 250, maxMs: 10_000 })
    for (let told = false; ; told = true) {
      try {
        const opened = new KubeAuthority(options, await findOrMake(options, organization))
        opened.#follow()
        return opened
      } catch (error) {
        if (!(error instanceof KubeError)) throw error
        if (!told) log.warn({ code: error.code }, `the certificate authority is waited for: ${error.message}`)
        await new Promise<void>((resolve) => void clock.after(backoff.next(), resolve))
      }
    }
  }

  get trustBundle(): string {
    return this.#roots
  }

  /** Which Secret it is from. */
  get secret(): string {
    return `${this.#options.namespace}/${this.#current.secret}`
  }

  async issue(csr: string, identity: Identity, validitySeconds: number): Promise<readonly string[]> {
    const chain = await this.#current.authority.issue(csr, identity, validitySeconds)
    return [...chain.slice(0, -1), this.#roots]
  }

  serverCertificate(
    names: readonly string[],
    validitySeconds: number,
  ): Promise<KeyPair & { readonly notAfter: number }> {
    return this.#current.authority.serverCertificate(names, validitySeconds)
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#reflectors.values()].map((one) => one.stop()))
    await this.#turn
  }

  #follow(): void {
    const { client, namespace, clock, log } = this.#options
    for (const name of CA_SECRETS) {
      const reflector = new Reflector<Secret>({
        client,
        clock,
        log,
        resource: SECRETS,
        namespace,
        fieldSelector: `metadata.name=${name}`,
        project: ({ metadata, ...rest }) => ({ metadata: { name: metadata.name }, data: (rest as Secret).data ?? {} }),
      })
      this.#reflectors.set(name, reflector)
      reflector.start(() => {
        this.#turn = this.#turn.then(() => this.#look())
      })
    }
  }

  /** Takes the Secret that counts now, if it is another than before and can be used. */
  async #look(): Promise<void> {
    const { clock, log } = this.#options
    if (![...this.#reflectors.values()].every((one) => one.isSynced)) return
    const name = CA_SECRETS.find((one) => this.#secretOf(one) !== undefined)
    // Removed while it is in use: what runs goes on; the next start makes a new one.
    if (!name) return
    try {
      const material = materialOf(this.#secretOf(name)!, this.#where(name))
      if (name === this.#current.secret && same(material, this.#current.material)) {
        this.problem = ''
        return
      }
      const authority = await authorityOf(material, clock, this.#where(name))
      this.#current = { authority, secret: name, material }
      // What was issued before is still in use for a day.
      this.#roots = mergePem(authority.trustBundle, this.#roots)
      this.problem = ''
      log.info({ secret: this.secret }, 'another certificate authority is in force')
      for (const listener of this.#listeners) listener()
    } catch (error) {
      if (this.problem !== messageOf(error))
        log.error({ secret: this.#where(name) }, `${messageOf(error)} The one before stays in force.`)
      this.problem = messageOf(error)
    }
  }

  #secretOf(name: SecretName): Secret | undefined {
    return this.#reflectors.get(name)?.get(name)
  }

  #where(name: string): string {
    return `Secret ${this.#options.namespace}/${name}`
  }
}

async function findOrMake(options: KubeAuthorityOptions, organization: string): Promise<Current> {
  const { client, namespace, clock, log } = options
  for (const name of CA_SECRETS) {
    const secret = await read<Secret>(client, SECRETS, { namespace, name })
    if (!secret) continue
    const where = `Secret ${namespace}/${name}`
    const material = materialOf(secret, where)
    return { authority: await authorityOf(material, clock, where), secret: name, material }
  }
  const { key, certificate } = await newRoot(organization, clock)
  const [, name] = CA_SECRETS
  const text = { 'ca-cert.pem': certificate, 'ca-key.pem': key, 'root-cert.pem': certificate, 'cert-chain.pem': '' }
  try {
    await create<Secret>(client, SECRETS, {
      metadata: { namespace, name },
      type: 'Opaque',
      data: Object.fromEntries(
        Object.entries(text).map(([field, value]) => [field, Buffer.from(value).toString('base64')]),
      ),
    })
    log.info({ secret: `${namespace}/${name}` }, 'a certificate authority was made')
  } catch (error) {
    // Another replica was faster.
    if (!(error instanceof KubeError && error.status === 409)) throw error
  }
  const secret = await read<Secret>(client, SECRETS, { namespace, name })
  if (!secret) throw new KubeError('KUBE_NOT_FOUND', `Secret ${namespace}/${name} was removed at once`)
  const material = materialOf(secret, `Secret ${namespace}/${name}`)
  return { authority: await authorityOf(material, clock, `Secret ${namespace}/${name}`), secret: name, material }
}

/** Istio's layout (istio.io, "Plug in CA certificates"). Throws CA_STATE_INVALID naming the key that is missing. */
function materialOf(secret: Secret, where: string): AuthorityMaterial {
  const text = (key: string): string => Buffer.from(secret.data?.[key] ?? '', 'base64').toString()
  const need = (key: string): string => {
    const found = text(key)
    if (found.trim() !== '') return found
    throw new AmbitError('CA_STATE_INVALID', `${where} has no ${key}.`, {
      hint: 'It needs ca-cert.pem, ca-key.pem, root-cert.pem and, for an intermediate, cert-chain.pem.',
    })
  }
  const certificate = need('ca-cert.pem')
  const roots = text('root-cert.pem').trim() === '' ? certificate : text('root-cert.pem')
  const selfSigned = mergePem(roots).includes(mergePem(certificate))
  const chain = text('cert-chain.pem').trim()
  return {
    certificate,
    key: need('ca-key.pem'),
    roots,
    intermediates: selfSigned ? '' : chain === '' ? certificate : mergePem(certificate, chain),
  }
}

function same(a: AuthorityMaterial, b: AuthorityMaterial): boolean {
  return (
    a.certificate === b.certificate && a.key === b.key && a.roots === b.roots && a.intermediates === b.intermediates
  )
}
