// Short ways to write the Kubernetes objects of a test. Must not live here: anything the mesh would not accept from a person.

/** Joins documents. */
export function documents(...list: readonly string[]): string {
  return list.join('\n---\n')
}

export function namespace(name: string, labels: Readonly<Record<string, string>> = {}): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } })
}

export const ENROLLED = { 'istio.io/dataplane-mode': 'ambient' } as const

export interface AppOptions {
  readonly namespace: string
  readonly name: string
  readonly replicas?: number
  readonly node?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly account?: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly image?: string
  /** Name → container port. */
  readonly ports?: Readonly<Record<string, number>>
  readonly container?: Readonly<Record<string, unknown>>
  readonly pod?: Readonly<Record<string, unknown>>
}

/** A Deployment with its ServiceAccount; the label `app` is its name. */
export function app(options: AppOptions): string {
  const labels = { app: options.name, ...options.labels }
  const account = options.account ?? options.name
  return documents(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: account, namespace: options.namespace },
    }),
    JSON.stringify({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: options.name, namespace: options.namespace },
      spec: {
        replicas: options.replicas ?? 1,
        selector: { matchLabels: { app: options.name } },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: account,
            ...(options.node ? { nodeName: options.node } : {}),
            containers: [
              {
                name: 'main',
                image: options.image ?? 'echo:v1',
                ...(options.command ? { command: options.command } : {}),
                ...(options.args ? { args: options.args } : {}),
                ports: Object.entries(options.ports ?? {}).map(([name, containerPort]) => ({ name, containerPort })),
                ...options.container,
              },
            ],
            ...options.pod,
          },
        },
      },
    }),
  )
}

/** A pod that does nothing, to call from. */
export function idle(options: Omit<AppOptions, 'command' | 'ports'>): string {
  return app({ ...options, image: 'idle:v1', command: ['sleep', 'infinity'] })
}

/** A Service over the label `app`; ports: name → [port, target]. Dual stack. */
export function service(
  namespace: string,
  name: string,
  ports: Readonly<Record<string, readonly [number, number]>>,
  more: { readonly app?: string; readonly labels?: Readonly<Record<string, string>>; readonly spec?: object } = {},
): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: more.labels ?? {} },
    spec: {
      selector: { app: more.app ?? name },
      ipFamilyPolicy: 'PreferDualStack',
      ports: Object.entries(ports).map(([portName, [port, targetPort]]) => ({ name: portName, port, targetPort })),
      ...more.spec,
    },
  })
}

export function peerAuthentication(namespace: string, mode: 'STRICT' | 'PERMISSIVE'): string {
  return JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { name: 'default', namespace },
    spec: { mtls: { mode } },
  })
}

export function authorization(namespace: string, name: string, spec: object): string {
  return JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace },
    spec,
  })
}

export function waypoint(namespace: string, name = 'waypoint'): string {
  return JSON.stringify({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name, namespace },
    spec: { gatewayClassName: 'ambit-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  })
}
