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
import { authorityOf, certificateEnds, newRoot, serverFault } from '../../pki/authority.ts'
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
/** By then the watch has told of what was written. */
const TELL_MS = 10_000
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
  readonly #stop = new AbortController()
  #shown = ''
  /** What was just written and is not told of yet. */
  #written: Readonly<Record<string, string>> | undefined
  #writtenAt = 0
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
      // An older state may still be on its way; what it says must not look like the loss of what was written.
      const told = this.#data('tls.crt') === this.#written?.['tls.crt']
      if (told || this.#options.clock.monotonic() - this.#writtenAt > TELL_MS) this.#written = undefined
      this.#show()
      this.#soon()
    })
    this.#configurations.start(() => this.#soon())
    this.#off = this.#options.leadership.onChange((leads) => leads && this.#soon())
    void Promise.all([this.#secrets.synced, this.#configurations.synced]).then(() => this.#soon())
  }

  async stop(): Promise<void> {
    this.#stop.abort()
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
    if (!this.#stop.signal.aborted) this.#timer = this.#options.clock.after(ms, () => this.#soon(), true)
  }

  /** The leader's work: a certificate that lasts, and its authority in the configuration. */
  async #look(): Promise<void> {
    const { leadership, clock, log, names } = this.#options
    if (this.#stop.signal.aborted || !leadership.leads || !this.#secrets.isSynced || !this.#configurations.isSynced)
      return
    try {
      const held = { certificate: this.#text('tls.crt'), key: this.#text('tls.key'), roots: this.#text('ca.crt') }
      const fault = held.certificate === '' ? 'there is none' : serverFault(held, names)
      const left = fault === undefined ? certificateEnds(held.certificate) - clock.now() : 0
      if (left >= RENEW_MS) await this.#trust(held.roots)
      else {
        log.info({ reason: fault ?? `it ends in ${Math.round(left / DAY_MS)} days` }, 'the webhook needs a certificate')
        await this.#renew(left > 0 ? held.roots : '')
      }
      this.#again(LOOK_MS)
    } catch (error) {
      log.warn({ error: messageOf(error) }, "the webhook's certificate could not be put right; it is tried again")
      this.#again(RETRY_MS)
    }
  }

  /** `inUse`: authorities of the certificate that the API server is still shown, '' when it trusts none. */
  async #renew(inUse: string): Promise<void> {
    const { client, clock, log, names, namespace, leadership } = this.#options
    const { key, certificate } = await newRoot('ambit webhook', clock)
    const authority = await authorityOf({ key, certificate }, clock, 'the webhook')
    const leaf = await authority.serverCertificate(names, LIFE_MS / 1_000)
    // The one in use and the new one; what is older signed nothing that is still shown.
    const bundle = mergePem(certificate, splitPem(inUse)[0] ?? '')
    await this.#trust(bundle)
    if (inUse !== '') await this.#settle()
    // Another one leads by now, and has begun anew.
    if (this.#stop.signal.aborted || !leadership.leads) return
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
    this.#writtenAt = clock.monotonic()
    this.#show()
    log.info({ notAfter: new Date(leaf.notAfter).toISOString() }, 'the webhook has another certificate')
  }

  /** Waits until API servers have heard of another authority, or until it is stopped. */
  async #settle(): Promise<void> {
    const { signal } = this.#stop
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.after(SETTLE_MS, resolve)
      signal.addEventListener('abort', () => {
        timer.cancel()
        resolve()
      })
    })
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
    return this.#written ? (this.#written[key] ?? '') : this.#data(key)
  }

  #data(key: string): string {
    const secret = this.#secrets.get(`${this.#options.namespace}/${WEBHOOK_SECRET}`)
    return Buffer.from(secret?.data?.[key] ?? '', 'base64').toString()
  }
}
