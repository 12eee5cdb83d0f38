// What the translation of one resource may ask about the others: settings, namespaces, services by host name, labels of
// workloads. Built once per translation. Must not live here: what any kind becomes.
import type { Service } from '../mesh/service.ts'
import type { MeshSettings } from '../mesh/settings.ts'
import { selects } from '../mesh/applicable.ts'
import { namespace } from './core-kinds.ts'
import { EXEMPT_NAMESPACES, meshLabel } from './labels.ts'
import { meshConfig, toSettings } from './mesh-config.ts'
import { deployment, pod } from './pod.ts'
import { keyOf, problemOf, type Finding, type KindDefinition, type Resource } from './resource.ts'
import type { Problem } from './problem.ts'
import { serviceHost } from './service.ts'
import type { ResourceSet } from './store.ts'

const NONE: Readonly<Record<string, string>> = {}

export class Context {
  readonly settings: MeshSettings
  readonly problems: Problem[] = []
  /** By host name; filled by translate.ts before routes and rules are read. */
  readonly services = new Map<string, Service>()
  readonly #byKind = new Map<string, Resource[]>()
  readonly #namespaces = new Map<string, Resource>()
  /** Labels of everything that is or will be a pod, by namespace. */
  readonly #podLabels = new Map<string, Readonly<Record<string, string>>[]>()

  constructor(set: ResourceSet) {
    for (const resource of set.resources) {
      const key = `${resource.definition.group}/${resource.definition.kind}`
      const list = this.#byKind.get(key)
      if (list) list.push(resource)
      else this.#byKind.set(key, [resource])
    }
    // Oldest first. The sort is stable: without a time of creation the order of path and document stays.
    for (const list of this.#byKind.values())
      list.sort((a, b) => (a.metadata.createdAt ?? 0) - (b.metadata.createdAt ?? 0))
    for (const one of this.of(namespace)) this.#namespaces.set(one.metadata.name, one)
    // A file mesh.yaml counts before Istio's ConfigMap.
    const configs = new Map(this.of(meshConfig).map((one) => [one.metadata.name, one.body]))
    const config = configs.get('default') ?? configs.get('ambit-system') ?? configs.get('istio-system')
    this.settings = toSettings(config, [...this.#namespaces.keys()].filter((name) => this.isEnrolled(name)).sort())
    for (const one of this.of(pod)) this.#addLabels(one.metadata.namespace, one.metadata.labels)
    for (const one of this.of(deployment))
      this.#addLabels(one.metadata.namespace, one.body.spec.template.metadata?.labels ?? NONE)
  }

  /** Resources of a kind, oldest first. */
  of<Body>(definition: KindDefinition<Body>): readonly Resource<Body>[] {
    return (this.#byKind.get(`${definition.group}/${definition.kind}`) ?? []) as Resource<Body>[]
  }

  has(definition: Pick<KindDefinition, 'group' | 'kind'>, namespaceName: string, name: string): boolean {
    const wanted = keyOf(definition, namespaceName, name)
    return (this.#byKind.get(`${definition.group}/${definition.kind}`) ?? []).some(
      (one) => keyOf(one.definition, one.metadata.namespace, one.metadata.name) === wanted,
    )
  }

  report(resource: Resource, finding: Finding): void {
    this.problems.push(problemOf(resource, finding))
  }

  namespaceLabels(name: string): Readonly<Record<string, string>> {
    return this.#namespaces.get(name)?.metadata.labels ?? NONE
  }

  namespaceAnnotations(name: string): Readonly<Record<string, string>> {
    return this.#namespaces.get(name)?.metadata.annotations ?? NONE
  }

  /** Namespaces with all these labels; `kubernetes.io/metadata.name` is the name itself. */
  selectNamespaces(wanted: Readonly<Record<string, string>>): string[] {
    return [...this.#namespaces.values()]
      .filter((one) => selects(wanted, { 'kubernetes.io/metadata.name': one.metadata.name, ...one.metadata.labels }))
      .map((one) => one.metadata.name)
  }

  /** True if the namespace has the opt-in label. */
  isEnrolled(name: string): boolean {
    return (
      !EXEMPT_NAMESPACES.includes(name) && meshLabel(this.namespaceLabels(name), 'dataplane-mode')?.value === 'ambient'
    )
  }

  /** A host as a resource writes it, completed: names without a dot are services of the resource's own namespace. */
  host(host: string, resource: Resource): string {
    return host.includes('.') || host === '*'
      ? host.toLowerCase()
      : serviceHost(host, resource.metadata.namespace, this.settings.clusterDomain).toLowerCase()
  }

  /** `namespace/hostname` of a host, also of one that does not exist. */
  serviceKeyOf(host: string, resource: Resource): string {
    const found = this.services.get(host)
    if (found) return `${found.namespace}/${host}`
    const suffix = `.svc.${this.settings.clusterDomain}`
    const parts = host.endsWith(suffix) ? host.slice(0, -suffix.length).split('.') : []
    return `${parts.length === 2 ? parts[1] : resource.metadata.namespace}/${host}`
  }

  /** True if some pod, or pod to be, of the namespace (every one if undefined) has the labels. */
  someWorkload(labels: Readonly<Record<string, string>>, namespaceName: string | undefined): boolean {
    const lists =
      namespaceName === undefined ? [...this.#podLabels.values()] : [this.#podLabels.get(namespaceName) ?? []]
    return lists.some((list) => list.some((has) => selects(labels, has)))
  }

  /** Services whose host name the pattern (a host, `*.suffix` or `*`) matches. */
  servicesMatching(pattern: string): Service[] {
    if (!pattern.startsWith('*')) {
      const found = this.services.get(pattern)
      return found ? [found] : []
    }
    const suffix = pattern.slice(1)
    return [...this.services.values()].filter(
      (service) => service.hostname.endsWith(suffix) && service.hostname.length > suffix.length,
    )
  }

  /** What to write instead of a host that is no service. */
  hostHint(host: string, resource: Resource): string {
    const [name] = host.split('.')
    const elsewhere = [...this.services.values()].filter((service) => service.name === name)
    const [other] = elsewhere
    if (other) return `Did you mean ${other.hostname}?`
    const here = [...this.services.values()]
      .filter((service) => service.namespace === resource.metadata.namespace)
      .map((service) => service.name)
    return here.length > 0
      ? `Services of namespace ${resource.metadata.namespace}: ${here.slice(0, 10).join(', ')}.`
      : `There is no Service in namespace ${resource.metadata.namespace}.`
  }

  #addLabels(name: string, labels: Readonly<Record<string, string>>): void {
    const list = this.#podLabels.get(name)
    if (list) list.push(labels)
    else this.#podLabels.set(name, [labels])
  }
}
