// Waypoints made from Gateways on a real API server with its controllers: a control plane without nodes, `ambit control` as a
// process beside it. What runs in the pods is tested where there are nodes (shop.test.ts).
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startReadyControl, type ControlProcess } from '../../world/control-process.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, root, uniqueName } from '../../world/sandbox.ts'

let cluster: Cluster
let control: ControlProcess
const IMAGE = 'ambit.local/ambit:test'
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  await ok(['create', 'namespace', 'ambit-system'])
  await ok(['apply', '-f', join(root, 'deploy/chart/crds')])
  await ok(['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all'])
  control = await startReady()
}, BUILD_MS)
afterAll(async () => {
  await control?.stop()
  expect(await cluster?.close()).toEqual([])
})

async function startReady(...flags: readonly string[]): Promise<ControlProcess> {
  const started = await startReadyControl(cluster.sandbox.layout.kubeconfig, ['--image', IMAGE, ...flags])
  return started
}

async function ok(args: readonly string[], input?: string): Promise<string> {
  const { code, out, err } = await cluster.kubectl(args, input)
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${err}`)
  return out
}

let namespaces = 0
/** A namespace of its own for each test. */
async function newNamespace(): Promise<string> {
  const name = `way-${++namespaces}`
  await ok(['create', 'namespace', name])
  return name
}
afterEach(() => {
  if (control.child.exitCode !== null) process.stderr.write(control.log())
})

const GATEWAY = (namespace: string, more = '', className = 'ambit-waypoint', labels = '') => `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: ${namespace}, labels: {${labels}}}
spec:
  gatewayClassName: ${className}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
  ${more}
`
const PARAMETERS = '\n  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: params}}'

interface Any {
  readonly [field: string]: Any & string & number
}

/** An object as the server has it; undefined when there is none. */
async function get(namespace: string, kind: string, name = 'wp'): Promise<Any | undefined> {
  const { code, out } = await cluster.kubectl(['-n', namespace, 'get', kind, name, '-o', 'json'])
  return code === 0 ? (JSON.parse(out) as Any) : undefined
}
const KINDS = ['serviceaccount', 'service', 'deployment', 'poddisruptionbudget'] as const
const made = async (namespace: string): Promise<string[]> => {
  const names = await Promise.all(KINDS.map(async (kind) => ((await get(namespace, kind)) ? kind : '')))
  return names.filter((kind) => kind !== '')
}
const allMade = (namespace: string) =>
  eventually('all objects of the waypoint', async () => (await made(namespace)).length === KINDS.length)
const noneMade = (namespace: string) =>
  eventually('no object of the waypoint', async () => (await made(namespace)).length === 0, 60_000)
const until = (what: string, namespace: string, kind: string, test: (object: Any) => boolean) =>
  eventually(what, async () => {
    const object = await get(namespace, kind)
    return object !== undefined && test(object)
  })
/** For what must not happen: controllers of a cluster answer within a few hundred milliseconds. */
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

describe('a Gateway of a waypoint class', () => {
  it('becomes a ServiceAccount, a Service, a Deployment and a budget that belong to it, and go with it', async () => {
    const used: string[] = []
    for (const className of ['ambit-waypoint', 'istio-waypoint']) {
      const namespace = await newNamespace()
      used.push(namespace)
      await ok(['apply', '-f', '-'], GATEWAY(namespace, '', className))
      await allMade(namespace)
      const gateway = await get(namespace, 'gateway')
      const deployment = await get(namespace, 'deployment')
      for (const kind of KINDS) {
        const object = await get(namespace, kind)
        expect(object!['metadata']!['ownerReferences']).toMatchObject([
          { kind: 'Gateway', name: 'wp', uid: gateway!['metadata']!['uid'], controller: true },
        ])
      }
      expect(deployment!['spec']!['template']!['spec']).toMatchObject({
        serviceAccountName: 'wp',
        containers: [{ image: IMAGE, args: expect.arrayContaining(['control.ambit-system.svc:15012']) as unknown }],
      })
      expect(deployment!['spec']!['replicas']).toBe(1)
      // The Deployment's controller takes it up: the pods are what a kubelet would run.
      await until('a pod is wanted', namespace, 'deployment', (now) => now['status']?.['unavailableReplicas'] === 1)
      await ok(['-n', namespace, 'delete', 'gateway', 'wp'])
    }
    // The cluster's garbage collector does it, which looks for new kinds (the CRDs are a minute old) twice a minute.
    for (const namespace of used) await noneMade(namespace)
  })

  it('has the objects repaired when somebody changes or deletes them', async () => {
    const namespace = await newNamespace()
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await allMade(namespace)
    const image = (object: Any) => object['spec']!['template']!['spec']!['containers']!['0']!['image']
    await ok(['-n', namespace, 'set', 'image', 'deployment/wp', 'waypoint=evil:1'])
    await until('the image is ours again', namespace, 'deployment', (now) => image(now) === IMAGE)
    for (const kind of KINDS) await ok(['-n', namespace, 'delete', kind, 'wp', '--wait=false'])
    await eventually('all are there again', async () => {
      const objects = await Promise.all(KINDS.map((kind) => get(namespace, kind)))
      return objects.every((one) => one !== undefined && one['metadata']!['deletionTimestamp'] === undefined)
    })
    await ok(['-n', namespace, 'label', 'service', 'wp', 'gateway.istio.io/managed-'])
    await until('the label is there again', namespace, 'service', (now) =>
      Boolean(now['metadata']!['labels']?.['gateway.istio.io/managed']),
    )
    // What others add is theirs.
    await ok(['-n', namespace, 'annotate', 'deployment', 'wp', 'team=shop'])
    await ok(['-n', namespace, 'set', 'image', 'deployment/wp', 'waypoint=evil:2'])
    await until('the image is ours again', namespace, 'deployment', (now) => image(now) === IMAGE)
    expect((await get(namespace, 'deployment'))!['metadata']!['annotations']!['team']).toBe('shop')
  })

  it('leaves replicas to who scales it', async () => {
    const namespace = await newNamespace()
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await allMade(namespace)
    await ok(['-n', namespace, 'scale', 'deployment/wp', '--replicas=3'])
    // Its Gateway changes, its Deployment too: all is applied anew.
    await ok(['apply', '-f', '-'], GATEWAY(namespace, '\n  infrastructure: {labels: {team: shop}}'))
    await until('the label', namespace, 'deployment', (now) => now['metadata']!['labels']!['team'] === 'shop')
    expect((await get(namespace, 'deployment'))!['spec']!['replicas']).toBe(3)
    await ok(['-n', namespace, 'scale', 'deployment/wp', '--replicas=1'])
    await pause(500)
    expect((await get(namespace, 'deployment'))!['spec']!['replicas']).toBe(1)
  })

  it('is given what its parameters ask for, live, and keeps what it has when they are wrong', async () => {
    const namespace = await newNamespace()
    const parameters = (data: Readonly<Record<string, string>>) =>
      ok(
        ['apply', '-f', '-'],
        JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'params', namespace }, data }),
      )
    const replicas = (wanted: number) =>
      until(`${wanted} replicas`, namespace, 'deployment', (now) => now['spec']!['replicas'] === wanted)
    await ok(['apply', '-f', '-'], GATEWAY(namespace, PARAMETERS))
    await pause(500)
    // Named and not there: nobody knows what is wanted.
    expect(await made(namespace)).toEqual([])
    await parameters({ deployment: 'spec: {replicas: 3}' })
    await allMade(namespace)
    await replicas(3)
    // Now the parameters have the word.
    await ok(['-n', namespace, 'scale', 'deployment/wp', '--replicas=1'])
    await replicas(3)
    await parameters({ deployment: 'spec: {replicas: 2, template: {spec: {serviceAccountName: other}}}' })
    await pause(500)
    expect((await get(namespace, 'deployment'))!['spec']!['replicas']).toBe(3)
    await parameters({ deployment: 'spec: {replicas: three}' })
    await pause(500)
    expect((await get(namespace, 'deployment'))!['spec']!['replicas']).toBe(3)
    expect(control.log()).toContain('changes spec.template.spec.serviceAccountName')
    await parameters({
      deployment: 'spec: {template: {spec: {containers: [{name: istio-proxy, resources: {limits: {cpu: "4"}}}]}}}',
      horizontalPodAutoscaler: 'spec: {minReplicas: 2, maxReplicas: 4}',
    })
    await until('the autoscaler', namespace, 'hpa', (now) => now['spec']!['maxReplicas'] === 4)
    await until(
      'the limit',
      namespace,
      'deployment',
      (now) => now['spec']!['template']!['spec']!['containers']!['0']!['resources']!['limits']!['cpu'] === '4',
    )
    await parameters({})
    await eventually('no autoscaler', async () => (await get(namespace, 'hpa')) === undefined)
  })

  it('loses its objects when it is of another class', async () => {
    const namespace = await newNamespace()
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await allMade(namespace)
    await ok(['-n', namespace, 'patch', 'gateway', 'wp', '--type=merge', '-p', '{"spec":{"gatewayClassName":"other"}}'])
    await noneMade(namespace)
    await ok([
      '-n',
      namespace,
      'patch',
      'gateway',
      'wp',
      '--type=merge',
      '-p',
      '{"spec":{"gatewayClassName":"istio-waypoint"}}',
    ])
    await allMade(namespace)
  })

  it('is left to the controller that its class names', async () => {
    const namespace = await newNamespace()
    const gatewayClass = (controllerName: string) =>
      ok(
        ['apply', '-f', '-'],
        JSON.stringify({
          apiVersion: 'gateway.networking.k8s.io/v1',
          kind: 'GatewayClass',
          metadata: { name: 'istio-waypoint' },
          spec: { controllerName },
        }),
      )
    await gatewayClass('istio.io/mesh-controller')
    await pause(300)
    await ok(['apply', '-f', '-'], GATEWAY(namespace, '', 'istio-waypoint'))
    await pause(500)
    expect(await made(namespace)).toEqual([])
    // The field cannot be changed.
    await ok(['delete', 'gatewayclass', 'istio-waypoint'])
    await gatewayClass('ambit.io/gateway-controller')
    await allMade(namespace)
  })

  it("never takes what is somebody else's", async () => {
    const namespace = await newNamespace()
    await ok(['-n', namespace, 'create', 'service', 'clusterip', 'wp', '--tcp=80:8080'])
    const before = await get(namespace, 'service')
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await eventually('it is told', () => control.log().includes(`There is a Service ${namespace}/wp already`))
    await pause(500)
    expect(await get(namespace, 'service')).toEqual(before)
    expect(await made(namespace)).toEqual(['service'])
    await ok(['-n', namespace, 'delete', 'gateway', 'wp'])
    await pause(500)
    expect(await get(namespace, 'service')).toEqual(before)
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await ok(['-n', namespace, 'delete', 'service', 'wp'])
    await eventually('there is room now', async () => (await made(namespace)).length === KINDS.length, 20_000)
  })

  it('is attended to by the leader alone, and by the next one when it is gone', async () => {
    const namespace = await newNamespace()
    const second = await startReady('--replica', 'second')
    try {
      await control.stop('SIGKILL')
      await ok(['apply', '-f', '-'], GATEWAY(namespace))
      await pause(1_000)
      // The lease of the one that was killed still runs.
      expect(await made(namespace)).toEqual([])
      await eventually('the second one leads', async () => (await made(namespace)).length === KINDS.length, 30_000)
      const versions = async () =>
        Promise.all(KINDS.map(async (kind) => (await get(namespace, kind))!['metadata']!['resourceVersion']))
      await pause(1_000)
      const before = await versions()
      // A new term applies nothing that is so already.
      await second.stop()
      control = await startReady('--replica', 'third')
      await eventually('the third one leads', () => control.log().includes('"leading"'), 30_000)
      await pause(1_000)
      expect(await versions()).toEqual(before)
    } finally {
      await second.stop()
    }
  })
})

describe('use-waypoint', () => {
  interface Waypointed {
    readonly namespace: string
    readonly name: string
    readonly waypoint?: { readonly hostname: string }
  }
  const hosts = async (
    kind: 'services' | 'workloads',
    namespace: string,
  ): Promise<Record<string, string | undefined>> => {
    const { translation } = await control.dump()
    return Object.fromEntries(
      (translation![kind] as readonly Waypointed[])
        .filter((one) => one.namespace === namespace && one.name !== 'wp')
        .map((one) => [one.name, one.waypoint?.hostname]),
    )
  }
  const expected = (
    what: string,
    namespace: string,
    services: Record<string, string | undefined>,
    workloads: Record<string, string | undefined>,
  ) =>
    eventually(what, async () => {
      const now = [await hosts('services', namespace), await hosts('workloads', namespace)]
      return JSON.stringify(now) === JSON.stringify([services, workloads])
    })

  it('on namespace, service or pod is followed live, also across namespaces, and as waypoint-for says', async () => {
    const namespace = await newNamespace()
    const other = await newNamespace()
    await ok(['apply', '-f', '-'], GATEWAY(namespace))
    await ok(['-n', namespace, 'create', 'service', 'clusterip', 'app', '--tcp=80:8080'])
    // As a kubelet reports it; endpoints are made only of pods on a node that is known.
    await ok(['apply', '-f', '-'], '{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}')
    await eventually('the pod', () =>
      ok([
        ...['-n', namespace, 'run', 'app', '--image=app:1', '--labels=app=app'],
        ...['--overrides', '{"spec":{"nodeName":"n1"}}'],
      ]),
    )
    await ok([
      ...['-n', namespace, 'patch', 'pod', 'app', '--subresource=status', '--type=merge', '-p'],
      '{"status":{"phase":"Running","podIP":"10.9.9.9","podIPs":[{"ip":"10.9.9.9"}],"conditions":[{"type":"Ready","status":"True"}]}}',
    ])
    const own = `${namespace}/wp.${namespace}.svc.cluster.local`
    const label = (...args: string[]) => ok(['-n', namespace, 'label', '--overwrite', ...args])
    await expected('nothing by itself', namespace, { app: undefined }, { app: undefined })
    await label('namespace', namespace, 'istio.io/use-waypoint=wp')
    await expected('all of the namespace', namespace, { app: own }, { app: own })
    await label('service', 'app', 'istio.io/use-waypoint=none')
    await label('pod', 'app', 'ambit.io/use-waypoint=none')
    await expected('both opt out', namespace, { app: undefined }, { app: undefined })
    await label('namespace', namespace, 'istio.io/use-waypoint-')
    await label('service', 'app', 'ambit.io/use-waypoint=wp')
    // Its own label counts for its address; as an endpoint of the service it is reached through the waypoint only.
    await expected('the service, and so its pod', namespace, { app: own }, { app: own })
    await label('service', 'app', 'ambit.io/use-waypoint-', 'istio.io/use-waypoint-')
    await label('pod', 'app', 'ambit.io/use-waypoint=wp')
    await expected('the pod alone', namespace, { app: undefined }, { app: own })

    await label('pod', 'app', 'ambit.io/use-waypoint-')
    await label('namespace', namespace, 'istio.io/use-waypoint=wp', `istio.io/use-waypoint-namespace=${other}`)
    const theirs = `${other}/wp.${other}.svc.cluster.local`
    const nowhere = async () => Object.values(await hosts('services', namespace))[0] !== theirs
    await ok(['apply', '-f', '-'], GATEWAY(other))
    await allMade(other)
    // Its listener allows its own namespace only.
    expect(await nowhere()).toBe(true)
    await ok(
      ['apply', '-f', '-'],
      GATEWAY(other).replace('protocol: HBONE', 'protocol: HBONE, allowedRoutes: {namespaces: {from: All}}'),
    )
    await expected('a waypoint of another namespace', namespace, { app: theirs }, { app: theirs })

    const serves = (what: string) =>
      ok(['-n', other, 'label', '--overwrite', 'gateway', 'wp', `istio.io/waypoint-for=${what}`])
    await serves('service')
    await expected('services only: the pod as their endpoint', namespace, { app: theirs }, { app: theirs })
    await serves('workload')
    await expected('pods only', namespace, { app: undefined }, { app: theirs })
    await serves('none')
    await expected('nothing', namespace, { app: undefined }, { app: undefined })
    await serves('all')
    await expected('all again', namespace, { app: theirs }, { app: theirs })
  })
})
