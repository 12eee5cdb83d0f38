// Statuses and what becomes of bad resources, on a real API server without nodes: `ambit control` as a process beside it and the
// CRDs of the chart.
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startReadyControl, type ControlProcess } from '../../world/control-process.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, root, uniqueName } from '../../world/sandbox.ts'

interface Condition {
  readonly type: string
  readonly status: string
  readonly reason: string
  readonly message: string
  readonly observedGeneration: number
  readonly lastTransitionTime: string
}

let cluster: Cluster
let control: ControlProcess
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  await cluster.kubectl(['apply', '--server-side', '-f', join(root, 'deploy/chart/crds')])
  await cluster.kubectl(['wait', '--for=condition=Established', 'crd', '--all'])
  await cluster.kubectl(['create', 'namespace', 'ambit-system'])
  await cluster.kubectl(['create', 'namespace', 'shop'])
  for (const name of ['reviews', 'ratings'])
    await cluster.kubectl(['create', 'service', 'clusterip', name, '--tcp=80', '-n', 'shop'])
  control = await startReadyControl(cluster.sandbox.layout.kubeconfig)
}, BUILD_MS)
afterAll(async () => {
  await control?.stop()
  expect(await cluster?.close()).toEqual([])
})

async function applied(yaml: string): Promise<void> {
  const { code, err } = await cluster.kubectl(['apply', '-f', '-'], yaml)
  expect({ code, err }).toMatchObject({ code: 0 })
}

interface Thing {
  readonly metadata: { readonly generation: number }
  readonly status?: {
    readonly conditions?: readonly Condition[]
    readonly validationMessages?: readonly { readonly level: string; readonly message: string }[]
    readonly parents?: readonly { readonly controllerName: string; readonly conditions: readonly Condition[] }[]
  }
}

async function read(kind: string, name: string, namespace = 'shop'): Promise<Thing> {
  return JSON.parse((await cluster.kubectl(['get', kind, name, '-n', namespace, '-o', 'json'])).out) as Thing
}

async function patchStatus(kind: string, name: string, status: object): Promise<void> {
  const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })]
  const { code, err } = await cluster.kubectl(['patch', kind, name, '-n', 'shop', ...patch])
  expect({ code, err }).toMatchObject({ code: 0 })
}

/** A condition of the newest generation. */
async function condition(kind: string, name: string, type: string): Promise<Condition> {
  const found = await eventually(`${kind} ${name} has ${type}`, async () => {
    const { metadata, status } = await read(kind, name)
    const all = status?.conditions ?? status?.parents?.[0]?.conditions ?? []
    const found = all.find((one) => one.type === type)
    return found?.observedGeneration === metadata.generation ? found : undefined
  })
  return found!
}

const virtualService = (route: string): string => `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {${route}}}]}]
`

describe('the status of an Istio resource', () => {
  it('is not Reconciled while there is no waypoint to do it', async () => {
    await applied(virtualService('host: reviews'))
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({
      status: 'False',
      reason: 'NeedsWaypoint',
    })
    await applied(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`)
    const enrol = ['istio.io/dataplane-mode=ambient', 'istio.io/use-waypoint=waypoint']
    await cluster.kubectl(['label', 'namespace', 'shop', ...enrol])
    await eventually(
      'it is reconciled',
      async () => (await read('virtualservice', 'reviews')).status?.conditions?.[0]?.status === 'True',
    )
  })

  it('is Reconciled when the mesh does what it says, in kubectl get too', async () => {
    await applied(virtualService('host: reviews'))
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({
      status: 'True',
      reason: 'Reconciled',
    })
    expect((await cluster.kubectl(['get', 'vs', '-n', 'shop'])).out).toMatch(/RECONCILED[\s\S]*True/)
  })

  it('names the field and the fix of a bad one, and says that the last good version serves', async () => {
    await applied(virtualService('host: reviews, weigth: 5'))
    const bad = await condition('virtualservice', 'reviews', 'Reconciled')
    expect(bad).toMatchObject({ status: 'False', reason: 'LastGoodKept' })
    expect(bad.message).toMatch(/spec\.http\[0\]\.route\[0\]\.destination/)
    const { translation } = await control.dump()
    expect(translation?.['routes']).toMatchObject([{ hostname: 'reviews.shop.svc.cluster.local' }])
    await applied(virtualService('host: reviews'))
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({ status: 'True' })
    expect((await read('virtualservice', 'reviews')).status?.validationMessages).toBeUndefined()
  })

  it('keeps the time of a condition that stays as it is', async () => {
    const before = await condition('virtualservice', 'reviews', 'Reconciled')
    await applied(virtualService('host: reviews, port: {number: 80}'))
    const after = await condition('virtualservice', 'reviews', 'Reconciled')
    expect(after.observedGeneration).toBeGreaterThan(before.observedGeneration)
    expect(after.lastTransitionTime).toBe(before.lastTransitionTime)
  })

  it('stands beside the conditions and messages of others, and changes none of them', async () => {
    const { status } = await read('virtualservice', 'reviews')
    const theirs = {
      type: 'Theirs',
      status: 'True',
      reason: 'R',
      message: '',
      lastTransitionTime: '2030-01-01T00:00:00Z',
    }
    const analysed = { type: { name: 'X', code: 'IST0101' }, level: 'ERROR', message: 'x' }
    const conditions = [...(status?.conditions ?? []), theirs]
    await patchStatus('virtualservice', 'reviews', { conditions, validationMessages: [analysed] })
    await applied(virtualService('host: reviews, weigth: 5'))
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({ status: 'False' })
    const bad = (await read('virtualservice', 'reviews')).status
    expect(bad?.conditions).toContainEqual(theirs)
    expect(bad?.validationMessages).toContainEqual(analysed)
    await applied(virtualService('host: reviews'))
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({ status: 'True' })
    const good = (await read('virtualservice', 'reviews')).status
    expect(good?.conditions).toContainEqual(theirs)
    expect(good?.validationMessages).toEqual([analysed])
    await patchStatus('virtualservice', 'reviews', { conditions: [], validationMessages: null })
  })

  it('is put right when somebody overwrites it', async () => {
    await patchStatus('virtualservice', 'reviews', { conditions: [] })
    expect(await condition('virtualservice', 'reviews', 'Reconciled')).toMatchObject({ status: 'True' })
  })

  it('says of a bad security resource without a good version that its targets are denied, and they are', async () => {
    await applied(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken, namespace: shop}
spec: {selector: {matchLabels: {app: reviews}}, action: ALOW}
`)
    expect(await condition('authorizationpolicy', 'broken', 'Reconciled')).toMatchObject({
      status: 'False',
      reason: 'DeniesTargets',
      message: expect.stringMatching(/spec\.action/) as string,
    })
    const { translation } = await control.dump()
    expect(translation?.['policies']).toMatchObject([{ action: 'DENY' }])
    await cluster.kubectl(['delete', 'authorizationpolicy', 'broken', '-n', 'shop'])
  })
})

const httpRoute = (backend: string, more = ''): string => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ratings, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: ratings, port: 80}]
  rules:
    - backendRefs: [{name: ${backend}, port: 80}]
${more}
`

describe('the status of Gateway API’s resources', () => {
  it('accepts the classes of waypoints, and no others', async () => {
    await applied(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ambit-waypoint}
spec: {controllerName: ambit.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: of-mine}
spec: {controllerName: ambit.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: of-istio, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`)
    expect(await condition('gatewayclass', 'ambit-waypoint', 'Accepted')).toMatchObject({
      status: 'True',
      reason: 'Accepted',
    })
    expect(await condition('gatewayclass', 'of-mine', 'Accepted')).toMatchObject({
      status: 'False',
      reason: 'Unsupported',
    })
    // Where Istio runs beside Ambit, its class and its Gateways are its own.
    expect((await read('gatewayclass', 'istio-waypoint')).status).toBeUndefined()
    expect((await read('gateway', 'of-istio')).status).toBeUndefined()
  })

  it('accepts a route of a Service', async () => {
    await applied(httpRoute('ratings'))
    expect(await condition('httproute', 'ratings', 'Accepted')).toMatchObject({ status: 'True', reason: 'Accepted' })
    expect(await condition('httproute', 'ratings', 'ResolvedRefs')).toMatchObject({
      status: 'True',
      reason: 'ResolvedRefs',
    })
  })

  it.each([
    ['a backend that is not there', httpRoute('nobody'), 'ResolvedRefs', 'BackendNotFound'],
    ['a backend of another kind', httpRoute('x, kind: Thing'), 'ResolvedRefs', 'InvalidKind'],
    [
      'a backend of a namespace that grants nothing',
      httpRoute('kubernetes, namespace: default'),
      'ResolvedRefs',
      'RefNotPermitted',
    ],
    [
      'a Service that is not there',
      httpRoute('ratings').replace('name: ratings, port: 80}]\n  rules', 'name: nobody}]\n  rules'),
      'Accepted',
      'NoMatchingParent',
    ],
    [
      'a port its Service has not',
      httpRoute('ratings').replace('name: ratings, port: 80}]\n  rules', 'name: ratings, port: 81}]\n  rules'),
      'Accepted',
      'NoMatchingParent',
    ],
    [
      'a filter Ambit has not',
      httpRoute(
        'ratings',
        '      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: ratings, port: 80}}}]',
      ),
      'Accepted',
      'UnsupportedValue',
    ],
  ])('says of %s which it is', async (_, yaml, type, reason) => {
    await applied(yaml)
    await eventually(`${type} is ${reason}`, async () => {
      const { status, metadata } = await read('httproute', 'ratings')
      const found = status?.parents?.[0]?.conditions.find((one) => one.type === type)
      return found?.observedGeneration === metadata.generation && found.status === 'False' && found.reason === reason
    })
  })

  it('leaves the entries of other controllers alone', async () => {
    await applied(httpRoute('ratings'))
    await condition('httproute', 'ratings', 'Accepted')
    const { status } = await read('httproute', 'ratings')
    const theirs = { parentRef: { name: 'theirs' }, controllerName: 'example.com/other', conditions: [] }
    await patchStatus('httproute', 'ratings', { parents: [...(status?.parents ?? []), theirs] })
    await applied(httpRoute('nobody'))
    await eventually('both have their entry', async () => {
      const parents = (await read('httproute', 'ratings')).status?.parents ?? []
      const ours = parents.find((one) => one.controllerName === 'ambit.io/gateway-controller')
      const other = parents.find((one) => one.controllerName === 'example.com/other')
      return (
        ours?.conditions.some((one) => one.reason === 'BackendNotFound') && other !== undefined && parents.length === 2
      )
    })
  })
})

interface Told {
  readonly reason: string
  readonly message: string
  readonly type: string
  readonly involvedObject: { readonly kind: string; readonly name: string }
}

async function events(kind: string, name: string): Promise<readonly Told[]> {
  const { out } = await cluster.kubectl(['get', 'events', '-n', 'shop', '-o', 'json'])
  const { items } = JSON.parse(out) as { items: readonly Told[] }
  return items.filter(({ involvedObject }) => involvedObject.kind === kind && involvedObject.name === name)
}

describe('Events', () => {
  it('tell of a resource without a status, where kubectl describes it', async () => {
    await applied(`
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: reviews.shop.svc.cluster.local, namespace: shop}
spec: {routes: [{name: all, condition: {pathRegex: '('}}]}
`)
    const name = 'reviews.shop.svc.cluster.local'
    await eventually('it is told', async () => (await events('ServiceProfile', name)).length > 0)
    expect(await events('ServiceProfile', name)).toContainEqual(
      expect.objectContaining({
        type: 'Warning',
        reason: 'ConfigInvalidValue',
        message: expect.stringMatching(/^spec\.routes\[0\]\.condition\.pathRegex: /) as string,
      }),
    )
    const { out } = await cluster.kubectl(['describe', 'serviceprofile', name, '-n', 'shop'])
    expect(out).toMatch(/Events:[\s\S]*Warning +ConfigInvalidValue [\s\S]*ambit-control/)
  })

  it('tell in a namespace that its label says nothing', async () => {
    await cluster.kubectl(['label', 'namespace', 'shop', 'istio.io/dataplane-mode=ambiant', '--overwrite'])
    await eventually('it is told', async () => (await events('Namespace', 'shop')).length > 0)
    const [told, ...more] = await events('Namespace', 'shop')
    expect(told).toMatchObject({ reason: 'ConfigInvalidValue', message: expect.stringContaining('ambiant') as string })
    expect(more).toEqual([])
  })

  it('tell of what became of a rejected resource, once each', async () => {
    await applied(virtualService('host: reviews'))
    await condition('virtualservice', 'reviews', 'Reconciled')
    await applied(virtualService('host: reviews, weigth: 5'))
    await eventually('it is told', async () =>
      (await events('VirtualService', 'reviews')).some((one) => one.reason === 'ConfigLastGoodKept'),
    )
    // The same again is no news.
    await applied(virtualService('host: reviews, weigth: 6'))
    await condition('virtualservice', 'reviews', 'Reconciled')
    const reasons = (await events('VirtualService', 'reviews')).map((one) => one.reason)
    expect(reasons).toContain('ConfigUnknownField')
    expect(new Set(reasons).size).toBe(reasons.length)
  })

  it('are counted, as statuses are', async () => {
    const { text } = await control.admin('/metrics')
    expect(Number(/^ambit_control_events_total\{outcome="written"\} (\d+)/m.exec(text)?.[1])).toBeGreaterThan(3)
    expect(Number(/^ambit_control_status_writes_total\{outcome="written"\} (\d+)/m.exec(text)?.[1])).toBeGreaterThan(10)
    expect(text).toMatch(/^ambit_control_events_total\{outcome="failed"\} 0/m)
    expect(text).toMatch(/^ambit_control_status_writes_total\{outcome="failed"\} 0/m)
  })
})
