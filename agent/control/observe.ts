// What control measures, read from its parts at each scrape. Must not live here: counting (each part does).
import { splitPem } from '../pki/bundle.ts'
import type { Metrics } from '../telemetry/exposition.ts'
import { typeUrls } from '../wire/types.ts'
import type { ResourceKind } from '../wire/contract.ts'
import type { Control } from './control.ts'
import type { Kube } from './kube.ts'

/** Adds control's families to the program's metrics. */
export function observe(control: Control, metrics: Metrics): void {
  const gauge = (name: string, help: string, labels: readonly string[] = []) => metrics.gauge({ name, help, labels })
  const counter = (name: string, help: string, labels: readonly string[] = []) =>
    metrics.counter({ name, help, labels })
  const streams = gauge('ambit_control_streams', 'Configuration streams open now.').with()
  const resources = gauge('ambit_control_resources', 'Resources published, by kind.', ['kind'])
  const problems = gauge('ambit_control_problems', 'Problems in the configuration, by severity.', ['severity'])
  const unpublished = gauge('ambit_control_unpublished', 'Resources that could not be encoded.').with()
  const duration = gauge('ambit_control_publish_seconds', 'Time the last change took from file to streams.').with()
  const revision = counter('ambit_control_revisions_total', 'Changes of the published state.').with()
  const responses = counter('ambit_control_responses_total', 'Responses sent on configuration streams.').with()
  const bytes = counter('ambit_control_response_bytes_total', 'Bytes of those responses.').with()
  const sent = counter('ambit_control_resources_sent_total', 'Resources and removals in those responses.').with()
  const nacks = counter('ambit_control_nacks_total', 'Responses of which a client refused a part.').with()
  const certificates = counter('ambit_control_certificates_total', 'Certificate requests, by outcome.', ['outcome'])
  const issued = certificates.with(['issued'])
  const refused = certificates.with(['refused'])
  const kinds = Object.keys(typeUrls) as ResourceKind[]
  const severities = ['error', 'warning', 'info'] as const
  metrics.beforeScrape(() => {
    const { xds, store, snapshot } = control
    streams.value = xds.streams
    for (const kind of kinds) resources.with([kind]).value = store.size(kind)
    for (const severity of severities) {
      problems.with([severity]).value = snapshot?.problems.filter((one) => one.severity === severity).length ?? 0
    }
    unpublished.value = control.publisher.unpublished.length
    duration.value = control.publishMs / 1_000
    revision.value = store.revision
    responses.value = xds.stats.responses
    bytes.value = xds.stats.bytes
    sent.value = xds.stats.resources
    nacks.value = xds.stats.nacks
    issued.value = control.issued
    refused.value = control.refused
  })
}

/** What there is to say of following a cluster's API. */
export function observeKube(kube: Kube, metrics: Metrics): void {
  const gauge = (name: string, help: string, labels: readonly string[] = []) => metrics.gauge({ name, help, labels })
  const counter = (name: string, help: string, labels: readonly string[] = []) =>
    metrics.counter({ name, help, labels })
  const leads = gauge('ambit_control_leads', '1 on the replica that writes to the cluster.').with()
  const stale = gauge('ambit_control_api_stale_kinds', 'Kinds of which nothing new is heard.').with()
  const objects = gauge('ambit_control_api_objects', 'Objects held, by kind.', ['kind'])
  const requests = counter('ambit_control_api_requests_total', 'Requests to the API server, by outcome.', ['outcome'])
  const lists = counter('ambit_control_api_lists_total', 'Kinds listed anew.').with()
  const read = counter('ambit_control_objects_read_total', 'Objects read because they were new or changed.').with()
  const translations = counter('ambit_control_translations_total', 'Translations of the configuration.').with()
  const duration = gauge('ambit_control_translate_seconds', 'Time the last one took, until it was published.').with()
  const caProblem = gauge('ambit_control_ca_problem', '1 while the Secret of the authority cannot be used.').with()
  const caEnds = gauge('ambit_control_ca_end_seconds', 'When the certificate that signs ends, Unix time.').with()
  const caRoots = gauge('ambit_control_trusted_roots', 'Roots that the mesh trusts.').with()
  metrics.beforeScrape(() => {
    const { leader, client, gather, authority } = kube
    caProblem.value = authority?.problem ? 1 : 0
    caEnds.value = (authority?.notAfter ?? 0) / 1_000
    caRoots.value = splitPem(authority?.trustBundle ?? '').length
    leads.value = leader.leads ? 1 : 0
    stale.value = kube.objects.problems.length
    // Two groups have a kind Gateway.
    for (const resource of kube.objects.kinds)
      objects.with([[resource.plural, resource.group].filter(Boolean).join('.')]).value = kube.objects.size(resource)
    for (const [outcome, count] of Object.entries(outcomesOf(client.counts))) requests.with([outcome]).value = count
    lists.value = kube.objects.counts.lists
    read.value = gather.counts.read
    translations.value = gather.counts.translations
    duration.value = gather.translateMs / 1_000
  })
}

function outcomesOf({ requests, throttled, refused, failed }: Kube['client']['counts']): Record<string, number> {
  return { answered: requests - throttled - refused - failed, throttled, refused, failed }
}
