import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { loadPaths, loadText } from './folder.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const SHOP = new URL('../../deploy/examples/shop', import.meta.url).pathname

const of = (text: string) => translate(resourcesOf(loadText(text, 'f.yaml')))
const told = (text: string) => of(text).problems.map((one) => `${one.severity} ${describeProblem(one)}`)

const POD = (name: string, namespace: string, extra = '', labels = `app: ${name}`) =>
  `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: ${namespace}, labels: {${labels}}${extra}}\nspec: {serviceAccountName: ${name}, nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}\nstatus: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::0:1"}], conditions: [{type: Ready, status: "True"}]}\n`
const SERVICE = (name: string, namespace: string, ports = '[{name: http, port: 80, targetPort: web}]', extra = '') =>
  `---\napiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: ${namespace}${extra}}\nspec: {selector: {app: ${name}}, clusterIP: 10.96.0.1, ports: ${ports}}\n`
const NAMESPACE = (name: string, labels: string) =>
  `---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}, labels: {${labels}}}\n`
const WAYPOINT = (name: string, namespace: string, extra = '', listener = '') =>
  `---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: ${name}, namespace: ${namespace}${extra}}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE${listener}}]}\n`

describe('the shop', () => {
  it('loads without a finding', () => {
    expect(readdirSync(SHOP).length).toBeGreaterThan(5)
    const state = resourcesOf(loadPaths([SHOP]))
    const translation = translate(state)
    expect([...state.problems, ...translation.problems].map(describeProblem)).toEqual([])
    expect(translation.settings.enrolledNamespaces).toEqual(['shop'])
    expect(translation.routes).toMatchObject([
      {
        dialect: 'VirtualService',
        namespace: 'shop',
        hostname: 'my-service.shop.svc.cluster.local',
        consumerNamespace: '*',
        rules: [
          {
            matches: [],
            action: {
              type: 'forward',
              destinations: [
                { subset: 'v1', weight: 80 },
                { subset: 'v2', weight: 20 },
              ],
            },
          },
        ],
      },
    ])
    expect(translation.upstreams).toMatchObject([
      {
        hostname: 'my-service.shop.svc.cluster.local',
        policy: {
          loadBalancer: 'LEAST_REQUEST',
          connectionPool: { http1MaxPendingRequests: 100, maxRequestsPerConnection: 10 },
          outlierDetection: {
            consecutive5xxErrors: 7,
            intervalMs: 10_000,
            baseEjectionTimeMs: 30_000,
            maxEjectionPercent: 10,
          },
        },
        subsets: [
          { name: 'v1', labels: { version: 'v1' } },
          { name: 'v2', labels: { version: 'v2' } },
        ],
      },
    ])
    expect(translation.policies).toMatchObject([
      { name: 'service-mesh-policy', action: 'ALLOW', scope: 'workload', selector: { app: 'my-service' } },
    ])
    expect(translation.waypoints).toMatchObject([
      { namespace: 'shop', name: 'waypoint', waypointFor: 'all', service: 'shop/waypoint.shop.svc.cluster.local' },
    ])
    expect(translation.services.map((one) => [one.name, one.waypoint?.hostname])).toEqual([
      ['frontend-service', 'shop/waypoint.shop.svc.cluster.local'],
      ['my-service', 'shop/waypoint.shop.svc.cluster.local'],
    ])
  })
})

describe('workloads', () => {
  it('are pods with an address: identity, place, services by their named ports', () => {
    const { workloads } = of(
      NAMESPACE('a', 'istio.io/dataplane-mode: ambient') +
        '---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-1}}\n' +
        SERVICE('api', 'a') +
        POD(
          'api',
          'a',
          ', ownerReferences: [{kind: ReplicaSet, name: api-dep-abc12}]',
          'app: api, version: v2, pod-template-hash: abc12',
        ),
    )
    expect(workloads).toEqual([
      {
        uid: 'Kubernetes//Pod/a/api',
        name: 'api',
        namespace: 'a',
        serviceAccount: 'api',
        trustDomain: 'cluster.local',
        addresses: ['10.0.0.1', 'fd00::1'],
        network: '',
        node: 'n1',
        clusterId: 'Kubernetes',
        tunnelProtocol: 'HBONE',
        nativeTunnel: false,
        hostNetwork: false,
        services: { 'a/api.a.svc.cluster.local': { 80: 8080 } },
        authorizationPolicies: [],
        healthy: true,
        canonicalName: 'api',
        canonicalRevision: 'v2',
        workloadType: 'deployment',
        workloadName: 'api-dep',
        locality: { region: 'eu', zone: 'eu-1', subzone: '' },
        capacity: 1,
        sameNode: 'direct',
        labels: { app: 'api', version: 'v2', 'pod-template-hash': 'abc12' },
      },
    ])
  })

  it('talk to their node by tunnels where pod, namespace or mesh say so, the nearest first', () => {
    const namespace = (extra: string) => `---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a${extra}}\n`
    const MESH =
      '---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "sameNode: tunnel"}\n'
    const sameNode = (text: string) => of(text).workloads[0]?.sameNode
    expect(sameNode(POD('x', 'a'))).toBe('direct')
    expect(sameNode(MESH + POD('x', 'a'))).toBe('tunnel')
    for (const part of ['labels', 'annotations']) {
      const tunnel = namespace(`, ${part}: {ambit.io/same-node: tunnel}`)
      expect(sameNode(tunnel + POD('x', 'a'))).toBe('tunnel')
      expect(sameNode(tunnel + POD('x', 'a', ', annotations: {ambit.io/same-node: direct}'))).toBe('direct')
      expect(sameNode(tunnel + POD('x', 'a', '', 'app: x, ambit.io/same-node: direct'))).toBe('direct')
    }
    expect(sameNode(MESH + POD('x', 'a', '', 'app: x, ambit.io/same-node: direct'))).toBe('direct')
    // Misspelt: told once, and on the safe side.
    const wrong = namespace(', labels: {ambit.io/same-node: tunel}') + POD('x', 'a') + POD('y', 'a')
    expect(sameNode(wrong)).toBe('tunnel')
    expect(told(wrong)).toEqual([
      'warning f.yaml:4: Namespace a: metadata.labels["ambit.io/same-node"]: Must be direct or tunnel, not "tunel": tunnels are used. [CONFIG_INVALID_VALUE]',
    ])
  })

  it('are enrolled by the label of their namespace or their own, which wins', () => {
    const tunnel = (namespaceLabels: string, labels: string, extra = '') =>
      of(NAMESPACE('a', namespaceLabels) + POD('x', 'a', extra, labels)).workloads[0]?.tunnelProtocol
    expect(tunnel('x: y', 'x: y')).toBe('NONE')
    expect(tunnel('istio.io/dataplane-mode: ambient', 'x: y')).toBe('HBONE')
    expect(tunnel('ambit.io/dataplane-mode: ambient', 'x: y')).toBe('HBONE')
    expect(tunnel('istio.io/dataplane-mode: ambient', 'istio.io/dataplane-mode: none')).toBe('NONE')
    expect(tunnel('x: y', 'ambit.io/dataplane-mode: ambient')).toBe('HBONE')
    // Ambit's own label wins over Istio's.
    expect(tunnel('istio.io/dataplane-mode: ambient, ambit.io/dataplane-mode: none', 'x: y')).toBe('NONE')
    // A sidecar is one that was put in, not one that was asked for.
    expect(tunnel('istio.io/dataplane-mode: ambient', 'x: y', ', annotations: {sidecar.istio.io/inject: "true"}')).toBe(
      'HBONE',
    )
    expect(tunnel('istio.io/dataplane-mode: ambient', 'x: y', ', annotations: {sidecar.istio.io/status: "{}"}')).toBe(
      'NONE',
    )
  })

  it('are never enrolled in exempt namespaces or on the host network', () => {
    expect(
      of(NAMESPACE('kube-system', 'istio.io/dataplane-mode: ambient') + POD('x', 'kube-system')).workloads[0]
        ?.tunnelProtocol,
    ).toBe('NONE')
    expect(of(NAMESPACE('kube-system', 'istio.io/dataplane-mode: ambient')).settings.enrolledNamespaces).toEqual([])
    const host =
      NAMESPACE('a', 'istio.io/dataplane-mode: ambient') +
      POD('x', 'a').replace('nodeName: n1', 'nodeName: n1, hostNetwork: true')
    expect(of(host).workloads[0]).toMatchObject({ tunnelProtocol: 'NONE', hostNetwork: true })
  })

  it('are unhealthy until their Ready condition is true, and gone when they have ended', () => {
    const pod = POD('x', 'a')
    expect(of(pod.replace('"True"', '"False"')).workloads[0]?.healthy).toBe(false)
    expect(of(pod.replace('status: {podIPs', 'status: {phase: Succeeded, podIPs')).workloads).toEqual([])
  })

  it('get nothing new on their way out, unless a service has no other', () => {
    const pod = (name: string, leaving: boolean) =>
      POD(name, 'a', leaving ? ', deletionTimestamp: "2026-01-01T00:00:00Z"' : '', 'app: api')
    const healthy = (text: string) => of(SERVICE('api', 'a') + text).workloads.map((one) => [one.name, one.healthy])
    expect(healthy(pod('one', true) + pod('two', false))).toEqual([
      ['one', false],
      ['two', true],
    ])
    expect(healthy(pod('one', true) + pod('two', true))).toEqual([
      ['one', true],
      ['two', true],
    ])
    // It does not serve any more.
    expect(healthy(pod('one', true).replace('"True"', '"False"'))).toEqual([['one', false]])
  })

  it('take their endpoints from EndpointSlices where a service has some', () => {
    const slice = (endpoints: string) =>
      `---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: api-1, namespace: a, labels: {kubernetes.io/service-name: api}}\naddressType: IPv4\nports: [{name: http, port: 9999, protocol: TCP}]\nendpoints: ${endpoints}\n`
    const both = of(
      SERVICE('api', 'a') +
        POD('api', 'a') +
        slice(
          '[{addresses: [10.0.0.1], targetRef: {kind: Pod, name: api}}, {addresses: [10.9.9.9], conditions: {ready: false}}]',
        ),
    )
    expect(both.workloads.map((one) => [one.uid, one.healthy, one.services])).toEqual([
      ['Kubernetes//Pod/a/api', true, { 'a/api.a.svc.cluster.local': { 80: 9999 } }],
      [
        'Kubernetes/discovery.k8s.io/EndpointSlice/a/api-1/10.9.9.9',
        false,
        { 'a/api.a.svc.cluster.local': { 80: 9999 } },
      ],
    ])
    expect(of(SERVICE('api', 'a') + POD('api', 'a') + slice('[]')).workloads[0]?.services).toEqual({})
  })

  it('leave out a service port whose named target a pod does not have', () => {
    expect(
      of(
        SERVICE(
          'x',
          'a',
          '[{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: other}, {name: c, port: 82}]',
        ) + POD('x', 'a'),
      ).workloads[0]?.services,
    ).toEqual({
      'a/x.a.svc.cluster.local': { 80: 8080, 82: 82 },
    })
  })
})

describe('services', () => {
  it('get protocols by appProtocol, port name or well-known port', () => {
    const ports = [
      '{name: http, port: 1}',
      '{name: http-web, port: 2}',
      '{name: grpc-web-x, port: 3}',
      '{name: grpc, port: 4}',
      '{name: http2-a, port: 5}',
      '{name: https, port: 6}',
      '{name: tcp-x, port: 7}',
      '{name: smtp, port: 25}',
      '{name: other, port: 8}',
      '{name: httpx, port: 9}',
      '{name: tcp, port: 10, appProtocol: kubernetes.io/h2c}',
      '{name: mysql, port: 11}',
      '{name: x, port: 12, appProtocol: constructor}',
      '{name: udp, port: 53, protocol: UDP}',
    ]
    expect(of(SERVICE('x', 'a', `[${ports.join(', ')}]`)).services[0]?.ports.map((one) => one.protocol)).toEqual([
      'http',
      'http',
      'http',
      'grpc',
      'http2',
      'tls',
      'tcp',
      'tcp',
      'unknown',
      'unknown',
      'http2',
      'tcp',
      'unknown',
    ])
  })

  it('prefer endpoints as trafficDistribution and internalTrafficPolicy say', () => {
    const one = (spec: string) => of(SERVICE('x', 'a').replace('spec: {', `spec: {${spec}, `)).services[0]
    expect(one('trafficDistribution: PreferClose')).toMatchObject({
      routingPreference: ['NETWORK', 'REGION', 'ZONE'],
      loadBalancing: 'FAILOVER',
    })
    expect(one('internalTrafficPolicy: Local, trafficDistribution: PreferClose')).toMatchObject({
      routingPreference: ['NODE'],
      loadBalancing: 'STRICT',
    })
    expect(one('publishNotReadyAddresses: true')).toMatchObject({
      routingPreference: [],
      loadBalancing: 'UNSPECIFIED',
      allowUnhealthy: true,
    })
  })

  it('prefer the zone or the node, by field or by annotation of service or namespace', () => {
    const zone = { routingPreference: ['NETWORK', 'REGION', 'ZONE'], loadBalancing: 'FAILOVER' }
    const node = { routingPreference: ['NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE'], loadBalancing: 'FAILOVER' }
    const one = (spec: string) => of(SERVICE('x', 'a').replace('spec: {', `spec: {${spec}, `)).services[0]
    expect(one('trafficDistribution: PreferSameZone')).toMatchObject(zone)
    expect(one('trafficDistribution: PreferSameNode')).toMatchObject(node)
    const annotation = ', annotations: {networking.istio.io/traffic-distribution: PreferSameNode}'
    expect(of(SERVICE('x', 'a', undefined, annotation)).services[0]).toMatchObject(node)
    const namespace = NAMESPACE('a', '').replace('labels: {}', annotation.slice(2))
    expect(of(namespace + SERVICE('x', 'a')).services[0]).toMatchObject(node)
  })

  it('keep a client at its endpoint as sessionAffinity says', () => {
    const one = (spec: string) => of(SERVICE('x', 'a').replace('spec: {', `spec: {${spec}, `)).services[0]
    expect(one('type: ClusterIP')?.sessionAffinitySeconds).toBe(0)
    expect(one('sessionAffinity: None')?.sessionAffinitySeconds).toBe(0)
    expect(one('sessionAffinity: ClientIP')?.sessionAffinitySeconds).toBe(10_800)
    const sixty = 'sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}'
    expect(one(`sessionAffinity: ClientIP, ${sixty}`)?.sessionAffinitySeconds).toBe(60)
    // Without ClientIP the time means nothing.
    expect(one(sixty)?.sessionAffinitySeconds).toBe(0)
  })

  it('without a cluster IP have no address, and ExternalName is none', () => {
    expect(of(SERVICE('x', 'a').replace('10.96.0.1', 'None')).services[0]?.addresses).toEqual([])
    expect(of(SERVICE('x', 'a').replace('spec: {', 'spec: {type: ExternalName, ')).services).toEqual([])
  })

  it('that select nothing are named', () => {
    expect(told(SERVICE('x', 'a'))).toEqual([
      'warning f.yaml:5: Service a/x: spec.selector: No workload in namespace a has the labels app=x: the service has no endpoint. [CONFIG_SELECTS_NOTHING] Check the labels and the namespace.',
    ])
  })
})

describe('waypoints', () => {
  const LABEL = 'istio.io/use-waypoint: wp'
  const ref = { hostname: 'a/wp.a.svc.cluster.local', port: 15008 }

  it('are used by what carries the label, or lives in a namespace that does', () => {
    const { services, workloads } = of(NAMESPACE('a', LABEL) + WAYPOINT('wp', 'a') + SERVICE('x', 'a') + POD('x', 'a'))
    expect([services[0]?.waypoint, workloads[0]?.waypoint]).toEqual([ref, ref])
    const own = of(
      WAYPOINT('wp', 'a') +
        SERVICE('x', 'a', undefined, ', labels: {ambit.io/use-waypoint: wp}') +
        POD('x', 'a') +
        POD('y', 'a'),
    )
    expect(own.services[0]?.waypoint).toEqual(ref)
    // Behind a service with a waypoint a pod is reached through it only; another pod is not.
    expect(own.workloads.map((one) => one.waypoint)).toEqual([ref, undefined])
    const none = of(
      NAMESPACE('a', LABEL) +
        WAYPOINT('wp', 'a') +
        SERVICE('x', 'a', undefined, ', labels: {istio.io/use-waypoint: none}'),
    )
    expect(none.services[0]?.waypoint).toBeUndefined()
  })

  it('serve services only, workloads only or nothing, as waypoint-for says', () => {
    const with_ = (value: string) => {
      const { services, workloads } = of(
        NAMESPACE('a', LABEL) +
          WAYPOINT('wp', 'a', `, labels: {istio.io/waypoint-for: ${value}}`) +
          SERVICE('x', 'a') +
          POD('x', 'a') +
          POD('y', 'a'),
      )
      return [services[0]?.waypoint !== undefined, ...workloads.map((one) => one.waypoint !== undefined)]
    }
    expect(with_('all')).toEqual([true, true, true])
    expect(with_('service')).toEqual([true, true, false])
    expect(with_('workload')).toEqual([false, true, true])
    expect(with_('none')).toEqual([false, false, false])
  })

  it('that are missing still count: the reference leads nowhere', () => {
    const text = NAMESPACE('a', LABEL) + SERVICE('x', 'a') + POD('x', 'a')
    expect(of(text).services[0]?.waypoint).toEqual(ref)
    expect(of(text).workloads[0]?.waypoint).toEqual(ref)
    expect(told(text)).toEqual([
      'error f.yaml:4: Namespace a: metadata.labels["istio.io/use-waypoint"]: wp in namespace a is no waypoint: there is no such Gateway of class ambit-waypoint. Traffic to what is labelled so is refused. [CONFIG_UNKNOWN_GATEWAY] Add the Gateway, or remove the label.',
    ])
  })

  it('of another namespace are used only where their listener allows it', () => {
    const labels = `${LABEL}, istio.io/use-waypoint-namespace: infra`
    const refused = of(NAMESPACE('a', labels) + WAYPOINT('wp', 'infra') + SERVICE('x', 'a'))
    expect(refused.services[0]?.waypoint).toEqual({ hostname: 'a/wp.infra.svc.cluster.local', port: 15008 })
    expect(refused.problems.map((one) => one.code)).toContain('CONFIG_NOT_PERMITTED')
    for (const from of ['from: All', 'from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: a}}']) {
      const allowed = of(
        NAMESPACE('a', labels) +
          WAYPOINT('wp', 'infra', '', `, allowedRoutes: {namespaces: {${from}}}`) +
          SERVICE('x', 'a'),
      )
      expect(allowed.services[0]?.waypoint).toEqual({ hostname: 'infra/wp.infra.svc.cluster.local', port: 15008 })
    }
  })

  it('end tunnels themselves and have no waypoint of their own', () => {
    const text =
      NAMESPACE('a', `${LABEL}, istio.io/dataplane-mode: ambient`) +
      WAYPOINT('wp', 'a') +
      SERVICE('wp', 'a', '[{name: mesh, port: 15008}]') +
      POD('wp-1', 'a', '', 'app: wp, gateway.networking.k8s.io/gateway-name: wp, istio.io/dataplane-mode: none')
    const { services, workloads } = of(text)
    expect(services[0]?.waypoint).toBeUndefined()
    expect(workloads[0]).toMatchObject({ nativeTunnel: true, tunnelProtocol: 'HBONE' })
    expect(workloads[0]).not.toHaveProperty('waypoint')
  })
})

describe('settings', () => {
  const MESH = (mesh: string) =>
    `---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n${mesh.replace(/^/gm, '    ')}\n`

  it("come from Istio's ConfigMap", () => {
    expect(
      of(
        MESH(
          'trustDomain: example.org\nrootNamespace: root\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\npathNormalization: {normalization: MERGE_SLASHES}\nl7Selector: istio',
        ),
      ).settings,
    ).toMatchObject({
      trustDomain: 'example.org',
      rootNamespace: 'root',
      outboundTrafficPolicy: 'REGISTRY_ONLY',
      pathNormalization: 'MERGE_SLASHES',
      l7Selector: 'istio',
      clusterDomain: 'cluster.local',
    })
  })

  it('name the line inside the ConfigMap that is wrong, and stay as they were', () => {
    const state = resourcesOf(loadText(MESH('trustDomain: a.b\noutboundTrafficPolicy: {mode: SOME}'), 'f.yaml'))
    expect(state.problems.map(describeProblem)).toEqual([
      'f.yaml:8: ConfigMap istio-system/istio: outboundTrafficPolicy.mode: Must be one of ALLOW_ANY, REGISTRY_ONLY, not the string "SOME". [CONFIG_INVALID_VALUE]',
    ])
    expect(translate(state).settings.trustDomain).toBe('cluster.local')
  })

  it('come from mesh.yaml before the ConfigMap, and warn of what has no effect', () => {
    const loaded = loadText('trustDomain: file.org\nenableTracing: true\ntrustDomian: x\n', 'mesh.yaml')
    const state = resourcesOf({
      ...loaded,
      files: [...loaded.files, ...loadText(MESH('trustDomain: map.org'), 'z.yaml').files],
    })
    expect(translate(state).settings.trustDomain).toBe('file.org')
    expect(state.problems.map((one) => `${one.severity} ${one.line} ${one.code} ${one.field}`)).toEqual([
      'info 2 CONFIG_NO_EFFECT enableTracing',
      'warning 3 CONFIG_UNKNOWN_FIELD trustDomian',
    ])
  })
})
