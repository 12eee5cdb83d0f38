// The mesh's certificate authority out of a Secret: `cacerts` in Istio's layout where people bring their own, else `ambit-ca`,
// made when it is not there. A changed Secret is taken up while everything runs; one that cannot be used is refused, and what was
// in force stays. Must not live here: issuing and changing over (pki/), telling pods of the roots (trust-bundle.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { KeyPair } from '../../io/connection.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { SECRETS } from '../../kube/mesh-kinds.ts'
import { Reflector } from '../../kube/reflector.ts'
import { keyOf } from '../../kube/resource.ts'
import type { Identity } from '../../mesh/identity.ts'
import { authorityOf, type Authority, type AuthorityMaterial, type SigningAuthority } from '../../pki/authority.ts'
import { Rotation, type KnownRoot } from '../../pki/rotation.ts'
import { selfTest } from '../../pki/self-test.ts'
import { CA_SECRETS, knownRootsOf, makeSecret, materialOf, readSecret, ROOTS_SECRET } from './ca-secret.ts'
import type { Secret, SecretName } from './ca-secret.ts'

export interface KubeAuthorityOptions {
  readonly client: KubeClient
  readonly namespace: string
  readonly clock: Clock
  readonly log: Logger
  /** As in pki/rotation.ts. */
  readonly spreadMs: number
  readonly keepMs: number
}

/** A Secret that can be used. */
interface Usable {
  readonly authority: SigningAuthority
  readonly secret: SecretName
  readonly material: AuthorityMaterial
}

/** Why a Secret is not used, for people. */
export interface CaProblem {
  readonly secret: SecretName
  readonly message: string
}

/** A certificate that ends may have been valid when it was looked at last. */
const LOOK_MS = 600_000

export class KubeAuthority implements Authority {
  readonly #options: KubeAuthorityOptions
  readonly #organization: string
  readonly #reflectors = new Map<SecretName, Reflector<Secret>>()
  readonly #listeners = new Set<() => void>()
  readonly #rotation: Rotation
  #taken: Usable
  #turn: Promise<void> = Promise.resolve()
  #timer: Timer | undefined
  #stopped = false
  /** Of the Secret that counts as it is now; undefined while it is used. */
  problem: CaProblem | undefined

  private constructor(options: KubeAuthorityOptions, organization: string, first: Usable, known: readonly KnownRoot[]) {
    this.#options = options
    this.#organization = organization
    this.#taken = first
    this.#rotation = new Rotation(first.authority, options, known)
  }

  /**
   * Waits until the API server answers, and until the Secret that is there can be used; makes `ambit-ca` when there is none.
   * `onProblem` is told of a Secret that cannot be used, once for each reason.
   */
  static async open(
    options: KubeAuthorityOptions,
    organization: string,
    onProblem: (problem: CaProblem) => void = () => undefined,
  ): Promise<KubeAuthority> {
    const { client, namespace, clock, log } = options
    const backoff = new Backoff({ baseMs: 250, maxMs: 10_000 })
    let told = ''
    for (;;) {
      try {
        const first = await findOrMake(options, organization, (problem) => {
          if (problem.message !== told) onProblem(problem)
        })
        const known = knownRootsOf(await readSecret(client, namespace, ROOTS_SECRET))
        const opened = new KubeAuthority(options, organization, first, known)
        opened.#follow()
        return opened
      } catch (error) {
        if (!(error instanceof KubeError) && !(error instanceof AmbitError && error.code === 'CA_STATE_INVALID'))
          throw error
        const said = messageOf(error)
        if (said !== told) log.error({ code: error.code }, `the certificate authority is waited for: ${said}`)
        told = said
        await new Promise<void>((resolve) => void clock.after(backoff.next(), resolve))
      }
    }
  }

  get trustBundle(): string {
    return this.#rotation.trustBundle
  }

  /** Which Secret it is from. */
  get secret(): string {
    return `${this.#options.namespace}/${this.#taken.secret}`
  }

  /** When the certificate that signs now ends, in milliseconds since the epoch. */
  get notAfter(): number {
    return this.#rotation.notAfter
  }

  /** True while new roots are told to everybody, and certificates still come from the authority before. */
  get waiting(): boolean {
    return this.#rotation.waiting
  }

  knownRoots(): readonly KnownRoot[] {
    return this.#rotation.known()
  }

  issue(csr: string, identity: Identity, validitySeconds: number): Promise<readonly string[]> {
    return this.#rotation.issue(csr, identity, validitySeconds)
  }

  serverCertificate(
    names: readonly string[],
    validitySeconds: number,
  ): Promise<KeyPair & { readonly notAfter: number }> {
    return this.#rotation.serverCertificate(names, validitySeconds)
  }

  /** Hears of another bundle, another authority in force, another problem. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    this.#rotation.stop()
    await Promise.all([...this.#reflectors.values()].map((one) => one.stop()))
    await this.#turn
  }

  #follow(): void {
    const { client, namespace, clock, log } = this.#options
    this.#rotation.onChange(() => {
      if (!this.waiting) log.info({ secret: this.secret }, 'the certificate authority in force, or its roots, changed')
      this.#tell()
    })
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
      reflector.start(() => this.#lookSoon())
    }
    this.#lookLater()
  }

  #lookLater(): void {
    if (this.#stopped) return
    this.#timer = this.#options.clock.after(
      LOOK_MS,
      () => {
        this.#lookSoon()
        this.#lookLater()
      },
      true,
    )
  }

  #lookSoon(): void {
    this.#turn = this.#turn.then(() => this.#look())
  }

  /** Takes the Secret that counts now, if it is another than before and can be used. */
  async #look(): Promise<void> {
    const { log } = this.#options
    if (this.#stopped || ![...this.#reflectors.values()].every((one) => one.isSynced)) return
    const name = CA_SECRETS.find((one) => this.#secretOf(one) !== undefined)
    // Removed while it is in use: what runs goes on; the next start makes a new one.
    if (!name) return
    const before = this.problem?.message
    try {
      const material = materialOf(this.#secretOf(name)!, whereOf(this.#options, name))
      if (!same(material, this.#taken.material)) {
        const authority = await usable(this.#options, this.#organization, material, name)
        this.#taken = { authority, secret: name, material }
        this.problem = undefined
        this.#rotation.take(authority)
        if (this.waiting) log.info({ secret: this.secret }, 'new roots are told to everybody before they are used')
        return
      }
      this.#taken = { ...this.#taken, secret: name }
      const ended = this.#taken.authority.notAfter <= this.#options.clock.now()
      this.problem = ended
        ? { secret: name, message: `The certificate in ${whereOf(this.#options, name)} has ended.` }
        : undefined
    } catch (error) {
      this.problem = { secret: name, message: messageOf(error) }
    }
    if (this.problem && this.problem.message !== before)
      log.error({ secret: this.problem.secret }, `${this.problem.message} What was in force stays.`)
    if (this.problem?.message !== before) this.#tell()
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }

  #secretOf(name: SecretName): Secret | undefined {
    return this.#reflectors.get(name)?.get(keyOf({ namespace: this.#options.namespace, name }))
  }
}

async function findOrMake(
  options: KubeAuthorityOptions,
  organization: string,
  onProblem: (problem: CaProblem) => void,
): Promise<Usable> {
  const { client, namespace, clock, log } = options
  for (const made of [false, true]) {
    for (const name of CA_SECRETS) {
      const secret = await readSecret(client, namespace, name)
      if (!secret) continue
      try {
        const material = materialOf(secret, whereOf(options, name))
        return { authority: await usable(options, organization, material, name), secret: name, material }
      } catch (error) {
        // The other one in its place would be another root for everybody.
        onProblem({ secret: name, message: messageOf(error) })
        throw error
      }
    }
    if (!made && (await makeSecret(client, namespace, organization, clock)))
      log.info({ secret: `${namespace}/${CA_SECRETS[1]}` }, 'a certificate authority was made')
  }
  throw new KubeError('KUBE_NOT_FOUND', `Secret ${namespace}/${CA_SECRETS[1]} was removed at once`)
}

/** Throws CA_STATE_INVALID that says what is wrong with it. */
async function usable(
  options: KubeAuthorityOptions,
  trustDomain: string,
  material: AuthorityMaterial,
  name: SecretName,
): Promise<SigningAuthority> {
  const where = whereOf(options, name)
  const authority = await authorityOf(material, options.clock, where)
  const identity = { trustDomain, namespace: options.namespace, serviceAccount: 'ambit-agent' }
  const refusal = await selfTest(authority, identity, `control.${options.namespace}.svc`)
  if (refusal === '') return authority
  throw new AmbitError('CA_STATE_INVALID', `What the authority in ${where} issues is not believed: ${refusal}.`, {
    hint: 'OpenSSL says so of a certificate issued under it: see the dates, path length, key usage and name constraints of each certificate up to the root.',
  })
}

function whereOf({ namespace }: KubeAuthorityOptions, name: string): string {
  return `Secret ${namespace}/${name}`
}

function same(a: AuthorityMaterial, b: AuthorityMaterial): boolean {
  return (
    a.certificate === b.certificate && a.key === b.key && a.roots === b.roots && a.intermediates === b.intermediates
  )
}
