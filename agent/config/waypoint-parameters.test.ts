import { describe, expect, it } from 'vitest'
import type { GatewayBody } from './gateway.ts'
import { parseObject, parseText } from './load.ts'
import type { Resource } from './resource.ts'
import { parametersRefOf, readParameters } from './waypoint-parameters.ts'
import { waypointResources, type KubernetesObject } from './waypoint.ts'

const gateway = parseText(
  'apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop, uid: u}\nspec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n',
  'f',
).resources[0] as Resource<GatewayBody>

type Made = KubernetesObject & {
  readonly spec: { readonly template: { readonly spec: { readonly containers: unknown[] } } }
}

const made = (...data: Readonly<Record<string, string>>[]): Record<string, Made> =>
  Object.fromEntries(
    waypointResources(gateway, { parameters: data.map((one) => readParameters('p', one)) }).map((object) => [
      object.kind,
      object as Made,
    ]),
  )
const refusal = (data: Readonly<Record<string, string>>): string => {
  try {
    made(data)
  } catch (error) {
    const { code, message } = error as Error & { code: string }
    return `${code} ${message}`
  }
  return 'none'
}

describe('parameters of a waypoint', () => {
  it('set replicas and resources, and what else Kubernetes knows', () => {
    const { Deployment, Service, ServiceAccount } = made({
      deployment: [
        'metadata: {annotations: {team: shop}}',
        'spec:',
        '  replicas: 3',
        '  template:',
        '    metadata: {labels: {tier: edge}}',
        '    spec:',
        '      nodeSelector: {pool: mesh}',
        '      tolerations: [{key: mesh, operator: Exists}]',
        '      containers:',
        '        - name: waypoint',
        '          resources: {limits: {cpu: "4", memory: 2Gi}}',
      ].join('\n'),
      service: 'spec: {type: LoadBalancer}',
      serviceAccount: 'metadata: {annotations: {role: x}}',
    })
    expect(Deployment!.metadata.annotations).toEqual({ team: 'shop' })
    expect(Deployment!.spec).toMatchObject({
      replicas: 3,
      template: {
        metadata: { labels: { tier: 'edge', 'ambit.io/dataplane-mode': 'none' } },
        spec: {
          serviceAccountName: 'wp',
          nodeSelector: { pool: 'mesh' },
          containers: [
            { name: 'waypoint', resources: { requests: { cpu: '100m' }, limits: { cpu: '4', memory: '2Gi' } } },
          ],
        },
      },
    })
    expect(Service!.spec).toMatchObject({
      type: 'LoadBalancer',
      selector: { 'gateway.networking.k8s.io/gateway-name': 'wp' },
    })
    expect(ServiceAccount!.metadata.annotations).toEqual({ role: 'x' })
    expect(parseObject(Deployment).problems).toEqual([])
  })

  it('written for Istio speak of the same container', () => {
    const { Deployment } = made({
      deployment: 'spec: {template: {spec: {containers: [{name: istio-proxy, resources: {requests: {cpu: 1}}}]}}}',
    })
    const { containers } = Deployment!.spec.template.spec
    expect(containers).toHaveLength(1)
    expect(containers[0]).toMatchObject({ name: 'waypoint', resources: { requests: { cpu: 1, memory: '256Mi' } } })
  })

  it('make an autoscaler where they ask for one, and a budget with the bound they give', () => {
    const { HorizontalPodAutoscaler, PodDisruptionBudget } = made({
      horizontalPodAutoscaler: 'spec: {minReplicas: 2, maxReplicas: 5}',
      podDisruptionBudget: 'spec: {minAvailable: 2}',
    })
    expect(HorizontalPodAutoscaler).toMatchObject({
      apiVersion: 'autoscaling/v2',
      metadata: { name: 'wp', ownerReferences: [{ uid: 'u' }] },
      spec: {
        scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'wp' },
        minReplicas: 2,
        maxReplicas: 5,
      },
    })
    expect(PodDisruptionBudget!.spec).toMatchObject({ minAvailable: 2 })
    expect(PodDisruptionBudget!.spec).not.toHaveProperty('maxUnavailable')
    expect(made({})).not.toHaveProperty('HorizontalPodAutoscaler')
  })

  it('of the Gateway lie over those of its class', () => {
    const { Deployment } = made(
      { deployment: 'spec: {replicas: 2, minReadySeconds: 5}' },
      { deployment: 'spec: {replicas: 4}' },
    )
    expect(Deployment!.spec).toMatchObject({ replicas: 4, minReadySeconds: 5 })
  })

  it('cannot take away what makes it a waypoint', () => {
    const changes = (key: string, text: string) => refusal({ [key]: text })
    expect(changes('deployment', 'spec: {template: {spec: {serviceAccountName: admin}}}')).toBe(
      'CONFIG_PARAMETERS_INVALID the parameter deployment changes spec.template.spec.serviceAccountName',
    )
    expect(changes('deployment', 'spec: {template: {metadata: {labels: {ambit.io/dataplane-mode: ambient}}}}')).toBe(
      'CONFIG_PARAMETERS_INVALID the parameter deployment changes spec.template.metadata.labels["ambit.io/dataplane-mode"]',
    )
    expect(changes('service', 'spec: {selector: {app: other}}')).toContain('changes spec.selector')
    expect(changes('service', 'metadata: {name: other}')).toContain('changes metadata.name')
    expect(changes('service', 'metadata: null')).toContain('changes metadata')
    expect(changes('serviceAccount', 'kind: Secret')).toContain('changes kind')
    expect(changes('deployment', 'spec: {template: {spec: {hostNetwork: true}}}')).toContain('hostNetwork')
  })

  it('that make no sense are refused by the name of their key', () => {
    expect(refusal({ deploymnet: 'spec: {}' })).toBe(
      "CONFIG_PARAMETERS_INVALID key deploymnet of ConfigMap p is none of a waypoint's",
    )
    expect(refusal({ deployment: 'spec: [' })).toContain('key deployment of ConfigMap p is no YAML')
    expect(refusal({ service: '- a' })).toBe('CONFIG_PARAMETERS_INVALID key service of ConfigMap p is no map')
    expect(refusal({ deployment: 'spec: {replicas: 2}', horizontalPodAutoscaler: 'spec: {}' })).toContain(
      'gives deployment.spec.replicas and a horizontalPodAutoscaler',
    )
    expect(refusal({ deployment: `x: ${'y'.repeat(70_000)}` })).toContain('longer than 65536')
    expect(refusal({ deployment: 'a: '.concat('{a: '.repeat(200), '1', '}'.repeat(200)) })).toContain('too deeply')
    expect(refusal({ deployment: '# nothing yet' })).toBe('none')
  })

  it('are in a ConfigMap and nowhere else', () => {
    expect(parametersRefOf(undefined)).toBeUndefined()
    expect(parametersRefOf({ group: '', kind: 'ConfigMap', name: 'p' })).toBe('p')
    expect(() => parametersRefOf({ group: 'x.io', kind: 'Params', name: 'p' })).toThrow("a Params of group 'x.io'")
  })
})
