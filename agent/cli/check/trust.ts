// Certificates that nobody's agent holds: the mesh's roots in every namespace, the webhook's. Must not live here: workloads' certificates
// (health.ts), issuing any (control/).
import { X509Certificate } from 'node:crypto'
import type { KubeClient } from '../../kube/client.ts'
import { CONFIG_MAPS, NAMESPACES, SECRETS } from '../../kube/mesh-kinds.ts'
import { read } from '../../kube/apply.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { listAll } from '../mesh/cluster.ts'
import { ageText } from '../mesh/report.ts'
import { plural } from '../print.ts'
import { error, ok, some, warning, type Finding } from './finding.ts'

const ROOT_CERT = 'ambit-root-cert'
const ROOT_KEY = 'root-cert.pem'
/** Time enough for a person to change a root. */
const ROOT_WARNING_MS = 30 * 86_400_000

export const VALIDATING: Resource = {
  group: 'admissionregistration.k8s.io',
  version: 'v1',
  plural: 'validatingwebhookconfigurations',
  kind: 'ValidatingWebhookConfiguration',
  namespaced: false,
}

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

/** The same roots in every namespace, and not about to end. `now`: milliseconds since the epoch. */
export async function bundleFindings(client: KubeClient, systemNamespace: string, now: number): Promise<Finding[]> {
  const fieldSelector = `metadata.name=${ROOT_CERT}`
  const maps = (await listAll<ConfigMap>(client, CONFIG_MAPS, { fieldSelector })) ?? []
  const roots = new Map(maps.map(({ metadata, data }) => [metadata.namespace ?? '', data?.[ROOT_KEY] ?? '']))
  const own = roots.get(systemNamespace)
  const about = `configmap/${ROOT_CERT}`
  if (!own)
    return [
      error(
        'CHECK_TRUST_BUNDLE',
        about,
        `It is not in ${systemNamespace}: nobody can know the mesh's roots.`,
        'The leader of control writes it: see its log.',
      ),
    ]
  const namespaces = ((await listAll(client, NAMESPACES)) ?? []).filter(({ metadata }) => !metadata.deletionTimestamp)
  const missing = namespaces.map(({ metadata }) => metadata.name).filter((name) => !roots.has(name))
  const other = namespaces.map(({ metadata }) => metadata.name).filter((name) => (roots.get(name) ?? own) !== own)
  const found: Finding[] = []
  for (const [names, what] of [
    [missing, 'is missing in'],
    [other, 'has other roots in'],
  ] as const)
    if (names.length > 0)
      found.push(
        error(
          'CHECK_TRUST_BUNDLE',
          about,
          `It ${what} ${some(names)}.`,
          'The leader of control writes it: see its log.',
        ),
      )
  const certificates = certificatesIn(own)
  const [soonest] = certificates.map(({ validToDate }) => validToDate.getTime() - now).toSorted((a, b) => a - b)
  if (soonest === undefined) found.push(error('CHECK_TRUST_BUNDLE', about, 'It holds no certificate.', ''))
  else if (soonest < ROOT_WARNING_MS)
    found.push(
      (soonest < 0 ? error : warning)(
        'CHECK_ROOT_ENDS',
        about,
        soonest < 0 ? 'A root has ended.' : `A root ends in ${ageText(soonest / 1000)}.`,
        'Put the next root beside it, in ambit-ca or cacerts, before it ends.',
      ),
    )
  if (found.length === 0)
    found.push(
      ok(
        'CHECK_TRUST_BUNDLE',
        about,
        `${plural(certificates.length, 'root')} in ${plural(namespaces.length, 'namespace')}, the first ends in ${ageText((soonest ?? 0) / 1000)}.`,
      ),
    )
  return found
}

interface Webhooks extends KubeObject {
  readonly webhooks?: readonly {
    readonly name: string
    readonly failurePolicy?: string
    readonly clientConfig: { readonly caBundle?: string }
  }[]
}

interface Secret extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

/** The API server can trust the webhook. */
export async function webhookFindings(client: KubeClient, systemNamespace: string, now: number): Promise<Finding[]> {
  const about = 'validatingwebhookconfiguration/ambit-validation'
  const configuration = await read<Webhooks>(client, VALIDATING, { name: 'ambit-validation' })
  if (!configuration)
    return [
      warning(
        'CHECK_WEBHOOK',
        about,
        'There is none: bad resources are refused only after they were applied, in their status.',
        'Chart: webhook.enabled.',
      ),
    ]
  const bundles = (configuration.webhooks ?? []).map(({ clientConfig }) => clientConfig.caBundle ?? '')
  const authorities = bundles.flatMap((one) => certificatesIn(Buffer.from(one, 'base64').toString()))
  if (bundles.some((one) => one === '') || authorities.length === 0)
    return [
      error(
        'CHECK_WEBHOOK_CA',
        about,
        'It has no CA yet: the API server cannot ask it.',
        'Control fills it in when its webhook serves: see its log.',
      ),
    ]
  const ended = authorities.filter(({ validToDate }) => validToDate.getTime() < now)
  if (ended.length === authorities.length)
    return [error('CHECK_WEBHOOK_CA', about, 'Its CA has ended.', 'Control renews it: see its log.')]
  const secret = await read<Secret>(client, SECRETS, { namespace: systemNamespace, name: 'ambit-webhook' })
  const pem = Object.entries(secret?.data ?? {}).find(
    ([key]) => /^(tls\.crt|.*cert.*\.pem)$/.test(key) && !/ca/.test(key),
  )
  const [leaf] = pem ? certificatesIn(Buffer.from(pem[1], 'base64').toString()) : []
  if (!leaf) return [ok('CHECK_WEBHOOK', about, 'Its CA is known to the API server.')]
  const left = (leaf.validToDate.getTime() - now) / 1000
  if (left < 0)
    return [error('CHECK_WEBHOOK_CERTIFICATE', about, 'Its certificate has ended.', 'Control renews it: see its log.')]
  if (!authorities.some((authority) => leaf.verify(authority.publicKey)))
    return [
      error(
        'CHECK_WEBHOOK_CERTIFICATE',
        about,
        'Its certificate is not of the CA that the API server has.',
        'Control writes both: see its log.',
      ),
    ]
  return [ok('CHECK_WEBHOOK', about, `Its certificate ends in ${ageText(left)}.`)]
}

/** Every certificate of a PEM text that can be read. */
function certificatesIn(pem: string): X509Certificate[] {
  return (pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).flatMap((one) => {
    try {
      return [new X509Certificate(one)]
    } catch {
      return []
    }
  })
}
