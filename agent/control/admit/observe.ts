// What is measured of the webhook. Must not live here: counting (server.ts, references.ts).
import type { Metrics } from '../../telemetry/exposition.ts'
import type { WebhookCertificate } from './certificate.ts'
import type { References } from './references.ts'
import type { WebhookServer } from './server.ts'

/** Adds its families to the program's metrics. */
export function observeWebhook(
  server: WebhookServer,
  certificate: WebhookCertificate,
  references: References,
  metrics: Metrics,
): void {
  const reviews = metrics.counter({
    name: 'ambit_control_reviews_total',
    help: 'Resources the webhook was asked about, by outcome.',
    labels: ['outcome'],
  })
  const skipped = metrics
    .counter({
      name: 'ambit_control_reviews_without_references_total',
      help: 'Reviews that said nothing of missing references, for lack of time.',
      labels: [],
    })
    .with()
  const expiry = metrics
    .gauge({
      name: 'ambit_control_webhook_certificate_expiry_seconds',
      help: "When the webhook's certificate ends, in seconds since 1970; 0 while there is none.",
      labels: [],
    })
    .with()
  metrics.beforeScrape(() => {
    for (const outcome of ['allowed', 'refused', 'failed'] as const)
      reviews.with([outcome]).value = server.counts[outcome]
    skipped.value = references.skipped
    expiry.value = certificate.notAfter / 1_000
  })
}
