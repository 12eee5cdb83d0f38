// The webhook's certificate: made by the leader into a Secret that all replicas serve from, its authority put into the webhook's
// configuration, and renewed long before it ends without a moment in which the API server does not trust it. Must not live here:
// serving (server.ts), the mesh's own authority (issue/).
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { apply } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { SECRETS } from '../../kube/mesh-kinds.ts'
import { Reflector } from '../../kube/reflector.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { authorityOf, certificateEnds, newRoot } from '../../pki/authority.ts'
import { mergePem, splitPem } from '../../pki/bundle.ts'
import type { Leadership } from '../lead.ts'

export const WEBHOOK_SECRET = 'ambit-webhook'
export const WEBHOOK_CONFIGURATION = 'ambit-validation'
export const CONFIGURATIONS: Resource = {
  group: 'admissionregistration.k8s.io',
  version: 'v1',
  plural: 'validatingwebhookconfigurations',
  kind: 'ValidatingWebhookConfiguration',
  namespaced: false,
}

const DAY_MS = 86_400_000
const LIFE_MS = 90 * DAY_MS
/** Renewed when a third of it is left. */
const RENEW_MS = 30 * DAY_MS
/** What API servers need to hear of another authority before a certificate of it is shown to them. */
const SETTLE_MS = 5_000
const RETRY_MS = 10_000
const LOOK_MS = 3_600_000

interface Secret extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

interface Configuration extends KubeObject {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig?: { readonly caBundle?: string } }[]
}

export interface WebhookCertificateOptions {
  readonly client: KubeClient
  readonly namespace: string
  readonly leadership: Leadership
  /** DNS names and addresses the API server knows the webhook by. */
  readonly names: readonly string[]
  onCertificate(material: { readonly cert: string; readonly key: string }): void
  readonly clock: Clock
  readonly log: Logger
}

export class WebhookCertificate {
  readonly #options: WebhookCertificateOptions
  readonly #secrets: Reflector<Secret>
  readonly #configurations: Reflector<Configuration>
  #turn: Promise<void> = Promise.resolve()
  #timer: Timer | undefined
  #stopped = false
  #shown = ''
  /** What was just written and is not told of yet. */
  #written: Readonly<Record<string, string>> | undefined
  #off: (() => void) | undefined
  /** Milliseconds since the epoch; 0 while there is none. */
  notAfter = 0

  constructor(options: WebhookCertificateOptions) {
    this.#options = options
    const { client, namespace, clock, log } = options
    this.#secrets = new Reflector<Secret>({
      client,
      clock,
      log,
      resource: SECRETS,
      namespace,
      fieldSelector: `metadata.name=${WEBHOOK_SECRET}`,
      project: ({ metadata: { name }, ...rest }) => ({
        metadata: { name, namespace },
        data: (rest as Secret).data ?? {},
      }),
    })
    this.#configurations = new Reflector<Configuration>({
      client,
      clock,
      log,
      resource: CONFIGURATIONS,
      fieldSelector: `metadata.name=${WEBHOOK_CONFIGURATION}`,
      project: ({ metadata: { name }, ...rest }) => ({
        metadata: { name },
        webhooks: ((rest as Configuration).webhooks ?? []).map((one) => ({
          name: one.name,
          clientConfig: { caBundle: one.clientConfig?.caBundle ?? '' },
        })),
      }),
    })
  }

  start(): void {
    this.#secrets.start(() => {
      this.#written = undefined
      this.#show()
      this.#soon()
    })
    this.#configurations.start(() => this.#soon())
    this.#off = this.#options.leadership.onChange((leads) => leads && this.#soon())
    void Promise.all([this.#secrets.synced, this.#configurations.synced]).then(() => this.#soon())
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#off?.()
    this.#timer?.cancel()
    await Promise.all([this.#secrets.stop(), this.#configurations.stop()])
    await this.#turn
  }

  /** Serves what the Secret holds. */
  #show(): void {
    const cert = this.#text('tls.crt')
    const key = this.#text('tls.key')
    if (cert === '' || key === '' || cert + key === this.#shown) return
    try {
      this.#options.onCertificate({ cert, key })
      this.#shown = cert + key
      this.notAfter = certificateEnds(cert)
    } catch (error) {
      this.#options.log.error({ error: messageOf(error) }, `Secret ${WEBHOOK_SECRET} cannot be served from`)
    }
  }

  #soon(): void {
    this.#turn = this.#turn.then(() => this.#look())
  }

  #again(ms: number): void {
    this.#timer?.cancel()
    if (!this.#stopped) this.#timer = this.#options.clock.after(ms, () => this.#soon(), true)
  }

  /** The leader's work: a certificate that lasts, and its authority in the configuration. */
  async #look(): Promise<void> {
    const { leadership, clock, log } = this.#options
    if (this.#stopped || !leadership.leads || !this.#secrets.isSynced || !this.#configurations.isSynced) return
    try {
      const left = this.#endOf(this.#text('tls.crt')) - clock.now()
      if (left < RENEW_MS) await this.#renew(left > 0 && this.#text('ca.crt') !== '')
      else await this.#trust(this.#text('ca.crt'))
      this.#again(LOOK_MS)
    } catch (error) {
      log.warn({ error: messageOf(error) }, "the webhook's certificate could not be put right; it is tried again")
      this.#again(RETRY_MS)
    }
  }

  async #renew(inUse: boolean): Promise<void> {
    const { client, clock, log, names, namespace } = this.#options
    const { key, certificate } = await newRoot('ambit webhook', clock)
    const authority = await authorityOf({ key, certificate }, clock, 'the webhook')
    const leaf = await authority.serverCertificate(names, LIFE_MS / 1_000)
    // The one in use and the new one; what is older signed nothing that is still shown.
    const bundle = mergePem(certificate, inUse ? (splitPem(this.#text('ca.crt'))[0] ?? '') : '')
    await this.#trust(bundle)
    if (inUse) await new Promise<void>((resolve) => void clock.after(SETTLE_MS, resolve))
    const text: Readonly<Record<string, string>> = {
      'ca.crt': bundle,
      'tls.crt': leaf.certificate,
      'tls.key': leaf.key,
    }
    await apply<Secret>(client, SECRETS, {
      metadata: { namespace, name: WEBHOOK_SECRET },
      data: Object.fromEntries(
        Object.entries(text).map(([name, value]) => [name, Buffer.from(value).toString('base64')]),
      ),
    })
    this.#written = text
    log.info({ notAfter: new Date(leaf.notAfter).toISOString() }, 'the webhook has another certificate')
  }

  /** Puts the authority into the configuration, where there is one. */
  async #trust(bundle: string): Promise<void> {
    const found = this.#configurations.get(WEBHOOK_CONFIGURATION)
    if (!found?.webhooks?.length || bundle === '') return
    const caBundle = Buffer.from(bundle).toString('base64')
    if (found.webhooks.every((one) => one.clientConfig?.caBundle === caBundle)) return
    await apply<Configuration>(this.#options.client, CONFIGURATIONS, {
      metadata: { name: WEBHOOK_CONFIGURATION },
      webhooks: found.webhooks.map(({ name }) => ({ name, clientConfig: { caBundle } })),
    })
  }

  #text(key: string): string {
    if (this.#written) return this.#written[key] ?? ''
    const secret = this.#secrets.get(`${this.#options.namespace}/${WEBHOOK_SECRET}`)
    return Buffer.from(secret?.data?.[key] ?? '', 'base64').toString()
  }

  /** 0 for what is no certificate. */
  #endOf(certificate: string): number {
    try {
      return certificateEnds(certificate)
    } catch {
      return 0
    }
  }
}
