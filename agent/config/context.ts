// What the translation of one resource may ask about the others: settings, namespaces, services by host name, labels of
// workloads. Built once per translation. Must not live here: what any kind becomes.
import type { Service } from '../mesh/service.ts'
import type { MeshSettings } from '../mesh/settings.ts'
import { selects } from '../mesh/applicable.ts'
import { namespace } from './core-kinds.ts'
import { LabelIndex } from './label-index.ts'
import { EXEMPT_NAMESPACES, meshLabel, SYSTEM_NAMESPACE } from './labels.ts'
import { chosenMeshConfig, meshConfig, toSettings } from './mesh-config.ts'
import { destinationRule } from './destination-rule.ts'
import { deployment, pod, type PodBody } from './pod.ts'
import { byAge, keyOf, problemOf, resourceKey, type Finding, type KindDefinition, type Resource } from './resource.ts'
import type { Problem } from './problem.ts'
import { service, serviceHost } from './service.ts'
import type { ResourceSet } from './store.ts'

const NONE: Readonly<Record<string, string>> = {}
const NO_REPORTS: readonly Reported[] = []
const NO_NAMES: ReadonlySet<string> = new Set()

/** A finding as it was reported, for whoever says the same again. */
export interface Reported {
  readonly resource: Resource
  readonly finding: Finding
  readonly once: boolean
}

interface DeclaredSubsets {
  readonly exact: ReadonlyMap<string, ReadonlySet<string>>
  readonly wild: readonly { readonly suffix: string; readonly names: readonly string[] }[]
}

export class Context {
  readonly settings: MeshSettings
  readonly #systemNamespace: string
  readonly #exempt: readonly string[]
  readonly problems: Problem[] = []
  /** By host name; filled by translate.ts before routes and rules are read. */
  readonly services = new Map<string, Service>()
  readonly #byKind = new Map<string, Resource[]>()
  readonly #keys = new Map<string, Set<string>>()
  readonly #namespaces = new Map<string, Resource>()
  #pods: LabelIndex<Resource<PodBody>> | undefined
  /** Labels of what will be pods. */
  readonly #templates = new LabelIndex<true>()
  readonly #told = new Set<string>()
  #recorder: Reported[] | undefined

  #subsets: DeclaredSubsets | undefined
  #selectors: Map<string, Readonly<Record<string, string>>> | undefined

  constructor(set: ResourceSet) {
    this.#systemNamespace = set.systemNamespace ?? SYSTEM_NAMESPACE
    this.#exempt = set.exemptNamespaces ?? EXEMPT_NAMESPACES
    for (const resource of set.resources) {
      const key = `${resource.definition.group}/${resource.definition.kind}`
      const list = this.#byKind.get(key)
      if (list) list.push(resource)
      else this.#byKind.set(key, [resource])
    }
    // Oldest first. The sort is stable: without a time of creation the order of path and document stays.
    for (const list of this.#byKind.values()) list.sort(byAge)
    for (const one of this.of(namespace)) this.#namespaces.set(one.metadata.name, one)
    const config = chosenMeshConfig(this.of(meshConfig), this.#systemNamespace)?.body
    this.settings = toSettings(config, [...this.#namespaces.keys()].filter((name) => this.isEnrolled(name)).sort())
    for (const one of this.of(deployment))
      this.#templates.add(one.metadata.namespace, one.body.spec.template.metadata?.labels ?? NONE, true)
  }

  /** All pods by namespace and labels, oldest first. */
  get pods(): LabelIndex<Resource<PodBody>> {
    if (!this.#pods) {
      this.#pods = new LabelIndex()
      for (const one of this.of(pod)) this.#pods.add(one.metadata.namespace, one.metadata.labels, one)
    }
    return this.#pods
  }

  /** Resources of a kind, oldest first. */
  of<Body>(definition: KindDefinition<Body>): readonly Resource<Body>[] {
    return (this.#byKind.get(`${definition.group}/${definition.kind}`) ?? []) as Resource<Body>[]
  }

  has(definition: Pick<KindDefinition, 'group' | 'kind'>, namespaceName: string, name: string): boolean {
    const kind = `${definition.group}/${definition.kind}`
    let keys = this.#keys.get(kind)
    if (!keys) this.#keys.set(kind, (keys = new Set((this.#byKind.get(kind) ?? []).map(resourceKey))))
    return keys.has(keyOf(definition, namespaceName, name))
  }

  report(resource: Resource, finding: Finding): void {
    this.repeat({ resource, finding, once: false })
  }

  /** The same, once for each resource, field and message: for what many others find wrong about one. */
  reportOnce(resource: Resource, finding: Finding): void {
    this.repeat({ resource, finding, once: true })
  }

  /** Reports what was reported before. */
  repeat(reported: Reported): void {
    this.#recorder?.push(reported)
    const { resource, finding, once } = reported
    if (once) {
      const key = `${resourceKey(resource)} ${finding.path.join('.')} ${finding.message}`
      if (this.#told.has(key)) return
      this.#told.add(key)
    }
    this.problems.push(problemOf(resource, finding))
  }

  /** What `make` gives, and all that it reported, also what others had told already. */
  recording<Value>(make: () => Value): { readonly value: Value; readonly reports: readonly Reported[] } {
    const reports: Reported[] = []
    this.#recorder = reports
    try {
      return { value: make(), reports: reports.length > 0 ? reports : NO_REPORTS }
    } finally {
      this.#recorder = undefined
    }
  }

  namespaceResource(name: string): Resource | undefined {
    return this.#namespaces.get(name)
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

  /** True if the pods of the namespace are never captured. */
  isExempt(name: string): boolean {
    return name === this.#systemNamespace || this.#exempt.includes(name)
  }

  /** True if the namespace has the opt-in label. */
  isEnrolled(name: string): boolean {
    return !this.isExempt(name) && meshLabel(this.namespaceLabels(name), 'dataplane-mode')?.value === 'ambient'
  }

  /** A host as a resource writes it, completed: names without a dot are services of the resource's own namespace. */
  host(host: string, resource: Resource): string {
    return host.includes('.') || host === '*'
      ? host.toLowerCase()
      : serviceHost(host, resource.metadata.namespace, this.settings.clusterDomain).toLowerCase()
  }

  /** A service by its name. */
  serviceOf(namespaceName: string, name: string): Service | undefined {
    return this.services.get(serviceHost(name, namespaceName, this.settings.clusterDomain))
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
    return this.pods.some(namespaceName, labels) || this.#templates.some(namespaceName, labels)
  }

  /** Labels of a service's endpoints; empty without a selector. */
  selectorOf(wanted: Service): Readonly<Record<string, string>> {
    this.#selectors ??= new Map(
      this.of(service).map((one) => [`${one.metadata.namespace}/${one.metadata.name}`, one.body.spec.selector ?? NONE]),
    )
    return this.#selectors.get(`${wanted.namespace}/${wanted.name}`) ?? NONE
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

  /** Names of the subsets that any DestinationRule declares for a host. */
  subsetsOf(host: string): ReadonlySet<string> {
    this.#subsets ??= this.#collectSubsets()
    const { exact, wild } = this.#subsets
    const found = exact.get(host) ?? NO_NAMES
    const more = wild.filter((one) => host.endsWith(one.suffix))
    return more.length === 0 ? found : new Set([...found, ...more.flatMap((one) => one.names)])
  }

  #collectSubsets(): DeclaredSubsets {
    const exact = new Map<string, Set<string>>()
    const wild: { suffix: string; names: string[] }[] = []
    for (const rule of this.of(destinationRule)) {
      const names = (rule.body.spec.subsets ?? []).map((one) => one.name)
      const pattern = this.host(rule.body.spec.host, rule)
      if (pattern.startsWith('*')) wild.push({ suffix: pattern.slice(1), names })
      else exact.set(pattern, new Set([...(exact.get(pattern) ?? NO_NAMES), ...names]))
    }
    return { exact, wild }
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
}
