import { describe, expect, it } from 'vitest'
import type { GatewayBody } from './gateway.ts'
import { loadText } from './folder.ts'
import { parseObject, parseText } from './load.ts'
import type { Resource } from './resource.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'
import { waypointResources } from './waypoint.ts'

const GATEWAY = (metadata: string, spec: string) =>
  `apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop${metadata}}\nspec: {${spec}}\n`
const GOOD = 'gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]'
const gateway = (metadata = '', extra = '') =>
  parseText(GATEWAY(metadata, GOOD + extra), 'f').resources[0] as Resource<GatewayBody>
const refusal = (metadata: string, spec: string) =>
  parseText(GATEWAY(metadata, spec), 'f').problems.map((one) => `${one.severity} ${one.field}: ${one.message}`)

describe('the objects of a waypoint', () => {
  it('are a ServiceAccount, a Service, a Deployment and a budget named after the Gateway, good resources themselves', () => {
    const objects = waypointResources(gateway(), { image: 'ambit:1', control: 'c:1' })
    expect(objects.map((one) => [one.kind, one.metadata.namespace, one.metadata.name])).toEqual([
      ['ServiceAccount', 'shop', 'wp'],
      ['Service', 'shop', 'wp'],
      ['Deployment', 'shop', 'wp'],
      ['PodDisruptionBudget', 'shop', 'wp'],
    ])
    for (const object of objects) {
      const parsed = parseObject(object)
      expect(parsed.rejected).toEqual([])
      // A budget is none of a mesh's business.
      expect(parsed.problems.filter((one) => one.severity !== 'info')).toEqual([])
    }
    expect(JSON.stringify(objects[2])).toContain('"--control","c:1"')
  })

  it('leave replicas to who scales, and run without any rights on a read-only root', () => {
    const { spec } = waypointResources(gateway())[2] as { spec: { replicas?: number; template: { spec: unknown } } }
    expect(spec.replicas).toBeUndefined()
    expect(spec.template.spec).toMatchObject({
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, runAsUser: 65532 },
      containers: [
        {
          command: ['/opt/ambit/agent/bin/ambit'],
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'] },
          },
        },
      ],
    })
  })

  it('give a replica time to be forgotten, and to end what it has, before it is killed', () => {
    const text = JSON.stringify(waypointResources(gateway())[2])
    const seconds = (name: string) => Number(new RegExp(`${name}[":,]+(\\d+)`).exec(text)?.[1])
    const delay = seconds('--drain-delay-seconds')
    expect(delay).toBeGreaterThanOrEqual(5)
    // 10: the supervisor's own margin.
    expect(seconds('terminationGracePeriodSeconds')).toBeGreaterThan(delay + seconds('--drain-seconds') + 10)
  })

  it('carry what spec.infrastructure asks for, and belong to the Gateway', () => {
    const [account] = waypointResources(
      gateway(', uid: u-1', ', infrastructure: {labels: {team: x}, annotations: {note: y}}'),
    )
    expect(account?.metadata).toMatchObject({
      labels: { team: 'x' },
      annotations: { note: 'y' },
      ownerReferences: [{ kind: 'Gateway', name: 'wp', uid: 'u-1', controller: true }],
    })
  })

  it('are recognised as the waypoint when they come back from the cluster', () => {
    const [, service, deployment] = waypointResources(gateway())
    const { template } = (deployment?.spec ?? {}) as { template: { metadata: { labels: Record<string, string> } } }
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'wp-1', namespace: 'shop', labels: template.metadata.labels },
      spec: { serviceAccountName: 'wp', containers: [{ name: 'c' }] },
      status: { podIP: '10.0.0.9' },
    }
    const namespace = {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'shop', labels: { 'istio.io/use-waypoint': 'wp', 'istio.io/dataplane-mode': 'ambient' } },
    }
    const gatewayText = loadText(GATEWAY('', GOOD), 'f')
    const rest = [service, pod, namespace].map((one, index) => ({
      file: `${index}`,
      root: 0,
      parsed: parseObject(one),
      empty: false,
    }))
    const { workloads, services } = translate(resourcesOf({ ...gatewayText, files: [...gatewayText.files, ...rest] }))
    expect(workloads).toMatchObject([
      {
        nativeTunnel: true,
        tunnelProtocol: 'HBONE',
        serviceAccount: 'wp',
        services: { 'shop/wp.shop.svc.cluster.local': { 15008: 15008 } },
      },
    ])
    expect([workloads[0]?.waypoint, services[0]?.waypoint]).toEqual([undefined, undefined])
  })
})

describe('a waypoint Gateway', () => {
  it('needs an HBONE listener on port 15008', () => {
    expect(refusal('', 'gatewayClassName: ambit-waypoint')).toEqual([
      'error spec: A waypoint needs a listener of protocol HBONE.',
    ])
    expect(
      refusal('', 'gatewayClassName: istio-waypoint, listeners: [{name: m, port: 15009, protocol: HBONE}]'),
    ).toEqual(['error spec.listeners[0].port: HBONE is served on port 15008, not 15009.'])
  })

  it('says for what it is', () => {
    expect(refusal(', labels: {istio.io/waypoint-for: pods}', GOOD)).toEqual([
      'error metadata.labels["istio.io/waypoint-for"]: Must be one of service, workload, all, none, not "pods".',
    ])
  })

  it('of another class is an ingress gateway, which is to come', () => {
    expect(refusal('', 'gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]')).toEqual([
      'warning spec.gatewayClassName: class istio: ingress gateways are a feature Ambit does not have yet.',
    ])
  })
})
