// agent/kube against a real API server: a control plane without nodes. What a server in trouble does is played beside the code
// (agent/kube/*.test.ts); here is what a real one does.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../../../agent/base/clock.ts'
import { silentLog } from '../../../agent/base/log.ts'
import { apply, create, read, remove, replace } from '../../../agent/kube/apply.ts'
import { KubeClient } from '../../../agent/kube/client.ts'
import { connect } from '../../../agent/kube/connection.ts'
import { Election } from '../../../agent/kube/lease.ts'
import { CONFIG_MAPS, NAMESPACES, PODS, projectionOf } from '../../../agent/kube/mesh-kinds.ts'
import { Reflector, type Change } from '../../../agent/kube/reflector.ts'
import type { KubeObject, Resource } from '../../../agent/kube/resource.ts'
import { BUILD_MS, openCluster, tell, type Cluster } from '../../world/kube.ts'
import { eventually, root, run, uniqueName } from '../../world/sandbox.ts'

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

let cluster: Cluster
let client: KubeClient
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  client = new KubeClient(await connect({ kubeconfig: cluster.sandbox.layout.kubeconfig }))
}, BUILD_MS)
afterAll(async () => {
  client?.close()
  expect(await cluster?.close()).toEqual([])
})

const configMap = (namespace: string, name: string, data: Readonly<Record<string, string>>): ConfigMap => ({
  metadata: { namespace, name },
  data,
})

let namespaces = 0
async function newNamespace(stem: string): Promise<string> {
  const name = `${stem}-${++namespaces}`
  await create(client, NAMESPACES, { metadata: { name } })
  return name
}

/** Many requests, some at a time. */
async function inParallel<T>(items: readonly T[], one: (item: T) => Promise<unknown>, width = 8): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < items.length) await one(items[next++]!)
    }),
  )
}

const reflectors: Reflector<ConfigMap>[] = []
afterEach(async () => {
  for (const reflector of reflectors.splice(0)) await reflector.stop()
})

function follow(namespace: string, changes: Change<ConfigMap>[], pageSize = 500): Reflector<ConfigMap> {
  const reflector = new Reflector<ConfigMap>({
    client,
    log: silentLog,
    resource: CONFIG_MAPS,
    namespace,
    fieldSelector: 'metadata.name!=kube-root-ca.crt',
    project: projectionOf(CONFIG_MAPS) as (object: KubeObject) => ConfigMap,
    pageSize,
  })
  reflector.start((batch) => changes.push(...batch))
  reflectors.push(reflector)
  return reflector
}

describe('following a kind on a real API server', () => {
  it('lists in pages, then hears of each change', async () => {
    const namespace = await newNamespace('follow')
    const names = Array.from({ length: 250 }, (_, at) => `m${at}`)
    await inParallel(names, (name) => create(client, CONFIG_MAPS, configMap(namespace, name, { a: '1' })))
    const changes: Change<ConfigMap>[] = []
    const before = client.counts.requests
    const reflector = follow(namespace, changes, 100)
    await reflector.synced
    expect(reflector.size).toBe(250)
    await eventually('three pages and a watch', () => client.counts.requests - before === 4)
    changes.length = 0
    await apply(client, CONFIG_MAPS, configMap(namespace, 'm7', { a: '2' }))
    await create(client, CONFIG_MAPS, configMap(namespace, 'new', {}))
    await remove(client, CONFIG_MAPS, { namespace, name: 'm8' })
    await eventually('three changes', () => changes.length >= 3)
    expect(changes).toMatchObject([
      { type: 'set', key: `${namespace}/m7`, object: { data: { a: '2' } }, before: { data: { a: '1' } } },
      { type: 'set', key: `${namespace}/new`, before: undefined },
      { type: 'delete', key: `${namespace}/m8`, before: { data: { a: '1' } } },
    ])
  })

  it('holds everything while API server and etcd are killed, and finds what changed since', async () => {
    const namespace = await newNamespace('killed')
    for (const name of ['a', 'b', 'c']) await create(client, CONFIG_MAPS, configMap(namespace, name, { of: 'before' }))
    const changes: Change<ConfigMap>[] = []
    const reflector = follow(namespace, changes)
    await reflector.synced
    changes.length = 0
    // Others write too: the place to go on from is behind the server's state.
    await newNamespace('other')
    for (const name of ['kube-apiserver', 'etcd']) {
      process.kill(cluster.sandbox.status().programs.find((one) => one.name === name)!.pid!, 'SIGKILL')
      if (name === 'kube-apiserver') {
        await eventually('it is missed', () => reflector.problem?.code === 'KUBE_UNREACHABLE', 20_000)
        expect([...reflector.values()].map((one) => one.metadata.name)).toEqual(['a', 'b', 'c'])
      }
      await eventually(
        'a change is heard of again',
        async () => {
          const change = configMap(namespace, 'b', { of: `after ${name}` })
          await apply(client, CONFIG_MAPS, change).catch(() => undefined)
          return reflector.get(`${namespace}/b`)?.data?.['of'] === `after ${name}`
        },
        60_000,
      )
      expect(reflector.problem).toBeUndefined()
    }
    // The new server knew nothing of the old one's past: a real 410. The state was never let go, only differences were told.
    expect(reflector.counts.gone).toBeGreaterThan(0)
    expect(changes.every((change) => change.type === 'set' && change.key === `${namespace}/b`)).toBe(true)
    expect(reflector.size).toBe(3)
  })

  it('says what it may not read, and holds nothing of it', async () => {
    const token = await tokenOf('default', 'default')
    const folder = join(cluster.sandbox.layout.home, 'pod')
    mkdirSync(folder)
    writeFileSync(join(folder, 'token'), token)
    writeFileSync(join(folder, 'namespace'), 'default')
    writeFileSync(join(folder, 'ca.crt'), Buffer.from(await rootCertificate()))
    const url = new URL(cluster.sandbox.layout.apiUrl)
    const inPod = new KubeClient(
      await connect({
        serviceAccountDir: folder,
        environment: { KUBERNETES_SERVICE_HOST: url.hostname, KUBERNETES_SERVICE_PORT: url.port },
      }),
    )
    const me = await inPod.ask<{ status: { userInfo: { username: string } } }>({
      method: 'POST',
      path: '/apis/authentication.k8s.io/v1/selfsubjectreviews',
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
    })
    expect(me.status.userInfo.username).toBe('system:serviceaccount:default:default')
    const reflector = new Reflector({ client: inPod, log: silentLog, resource: PODS, project: projectionOf(PODS) })
    reflector.start(() => undefined)
    await eventually('the refusal', () => reflector.problem?.code === 'KUBE_FORBIDDEN')
    expect(reflector.problem!.message).toContain('pods is forbidden')
    expect(reflector.isSynced).toBe(false)
    await reflector.stop()
    inPod.close()
  })
})

async function tokenOf(namespace: string, account: string): Promise<string> {
  const answer = await client.ask<{ status: { token: string } }>({
    method: 'POST',
    path: `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 600 } },
  })
  return answer.status.token
}

async function rootCertificate(): Promise<string> {
  const found = await eventually('the ConfigMap kube-root-ca.crt', () =>
    read<ConfigMap>(client, CONFIG_MAPS, { namespace: 'default', name: 'kube-root-ca.crt' }),
  )
  return found!.data!['ca.crt']!
}

describe('server-side apply', () => {
  it('leaves fields of others alone, takes back its own, and owns them under one name', async () => {
    const namespace = await newNamespace('apply')
    await apply(client, CONFIG_MAPS, configMap(namespace, 'm', { ours: '1', more: '1' }))
    const shown = await cluster.kubectl([
      '-n',
      namespace,
      'patch',
      'configmap',
      'm',
      '--type=merge',
      '-p',
      '{"data":{"theirs":"1"}}',
    ])
    expect(shown.code, shown.err).toBe(0)
    const after = await apply(client, CONFIG_MAPS, configMap(namespace, 'm', { ours: '2' }))
    expect(after.data).toEqual({ ours: '2', theirs: '1' })
    const { metadata } = (await read(client, CONFIG_MAPS, { namespace, name: 'm' }))! as KubeObject & {
      metadata: { managedFields: { manager: string; operation: string }[] }
    }
    expect(metadata.managedFields.map((one) => `${one.manager} ${one.operation}`).toSorted()).toEqual([
      'ambit Apply',
      'kubectl-patch Update',
    ])
  })

  it('changes no version when it says what is there already', async () => {
    const namespace = await newNamespace('same')
    const first = await apply(client, CONFIG_MAPS, configMap(namespace, 'm', { a: '1' }))
    const second = await apply(client, CONFIG_MAPS, configMap(namespace, 'm', { a: '1' }))
    expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion)
  })

  it('takes a field from another manager only by force, and writes nothing in a dry run', async () => {
    const namespace = await newNamespace('force')
    const other = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', ...configMap(namespace, 'm', { a: 'theirs' }) })
    expect((await cluster.kubectl(['apply', '--server-side', '-f', '-'], other)).code).toBe(0)
    const ours = configMap(namespace, 'm', { a: 'ours' })
    await expect(apply(client, CONFIG_MAPS, ours, { force: false })).rejects.toMatchObject({ code: 'KUBE_CONFLICT' })
    expect((await apply(client, CONFIG_MAPS, ours, { dryRun: true })).data).toEqual({ a: 'ours' })
    expect((await read<ConfigMap>(client, CONFIG_MAPS, { namespace, name: 'm' }))!.data).toEqual({ a: 'theirs' })
    expect((await apply(client, CONFIG_MAPS, ours)).data).toEqual({ a: 'ours' })
  })

  it('replaces and removes only what it has seen', async () => {
    const namespace = await newNamespace('seen')
    const seen = await create(client, CONFIG_MAPS, configMap(namespace, 'm', { a: '1' }))
    await apply(client, CONFIG_MAPS, configMap(namespace, 'm', { b: '1' }))
    await expect(replace(client, CONFIG_MAPS, seen)).rejects.toMatchObject({ code: 'KUBE_CONFLICT' })
    const { uid } = seen.metadata
    expect(await remove(client, CONFIG_MAPS, { namespace, name: 'm', uid: 'of another' })).toBe(false)
    expect(await remove(client, CONFIG_MAPS, { namespace, name: 'm', uid })).toBe(true)
    expect(await remove(client, CONFIG_MAPS, { namespace, name: 'm', uid })).toBe(false)
    expect(await read(client, CONFIG_MAPS, { namespace, name: 'm' })).toBeUndefined()
  })

  it('writes status apart from the rest', async () => {
    const namespace = await newNamespace('status')
    await create(client, PODS, podObject(namespace, 'p', 0) as KubeObject)
    const status = { conditions: [{ type: 'ambit.io/Enrolled', status: 'True' }] }
    const after = await apply(client, PODS, { metadata: { namespace, name: 'p' }, status } as KubeObject, {
      sub: 'status',
    })
    expect(after).toMatchObject({ status })
  })
})

describe('an election', () => {
  const candidate = (identity: string, log: string[], clock: ManualClock): Election =>
    new Election({
      client,
      log: silentLog,
      namespace: 'kube-system',
      name: 'ambit-test',
      identity,
      clock,
      onLeading: () => log.push(`${identity} leads`),
      onLost: () => log.push(`${identity} lost`),
    })

  it('has one leader, another one when it says nothing, and at once when it leaves', async () => {
    const log: string[] = []
    const clocks = { a: new ManualClock(Date.now()), b: new ManualClock(Date.now() + 3_600_000) }
    const a = candidate('a', log, clocks.a)
    const b = candidate('b', log, clocks.b)
    /** A while for both, in steps, each with time for its requests. */
    const pass = async (ms: number, who: readonly ManualClock[]): Promise<void> => {
      for (let at = 0; at < ms; at += 500) {
        for (const clock of who) clock.advance(500)
        await new Promise((resolve) => setTimeout(resolve, 40))
      }
    }
    a.start()
    await eventually('a leads', () => a.leading)
    b.start()
    // The clocks are an hour apart, which means nothing.
    await pass(20_000, [clocks.a, clocks.b])
    expect(log).toEqual(['a leads'])
    expect(b.holder).toBe('a')

    // a stands still, as a process that is stopped: b waits for the end of the lease, a finds out when it goes on.
    await pass(10_000, [clocks.b])
    expect(log).toEqual(['a leads'])
    await pass(10_000, [clocks.b])
    expect(log).toEqual(['a leads', 'b leads'])
    clocks.a.advance(10_000)
    expect(log).toEqual(['a leads', 'b leads', 'a lost'])

    await b.stop()
    await pass(6_000, [clocks.a])
    expect(log).toEqual(['a leads', 'b leads', 'a lost', 'b lost', 'a leads'])
    const lease = await cluster.kubectl(['-n', 'kube-system', 'get', 'lease', 'ambit-test', '-o', 'json'])
    expect(JSON.parse(lease.out)).toMatchObject({ spec: { holderIdentity: 'a', leaseTransitions: 2 } })
    await a.stop()
  })
})

/** As a Deployment makes it: what a kubelet would run, with what people write. */
function podObject(namespace: string, name: string, at: number): unknown {
  const app = `app-${at % 40}`
  return {
    metadata: {
      namespace,
      name,
      labels: {
        app,
        version: `v${at % 3}`,
        'pod-template-hash': `hash${at % 40}`,
        team: 'shop',
        'app.kubernetes.io/part-of': 'shop',
      },
      annotations: {
        'prometheus.io/scrape': 'true',
        'prometheus.io/port': '8080',
        'kubectl.kubernetes.io/restartedAt': '2026-01-01T00:00:00Z',
      },
    },
    spec: {
      nodeName: `node-${at % 100}`,
      containers: [
        {
          name: app,
          image: `registry.example/shop/${app}:1.${at % 3}`,
          ports: [{ name: 'http', containerPort: 8080 }],
          env: Array.from({ length: 12 }, (_, one) => ({
            name: `SETTING_${one}`,
            value: `value of setting ${one} of ${app}`,
          })),
          resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '256Mi' } },
          readinessProbe: { httpGet: { path: '/ready', port: 8080 }, periodSeconds: 5 },
          livenessProbe: { httpGet: { path: '/live', port: 8080 } },
        },
      ],
    },
  }
}

describe('memory', () => {
  it('of a held pod is a fraction of the object, and the pages are let go', async () => {
    const PODS_HELD = 1000
    const namespace = await newNamespace('many')
    await eventually('the service account', () =>
      read(client, { ...CONFIG_MAPS, plural: 'serviceaccounts', kind: 'ServiceAccount' } as Resource, {
        namespace,
        name: 'default',
      }),
    )
    await inParallel(
      Array.from({ length: PODS_HELD }, (_, at) => at),
      (at) => create(client, PODS, podObject(namespace, `pod-${at}`, at) as KubeObject),
    )
    const program = join(root, 'test/kube/control-plane/measure-memory.ts')
    const measured = await run([
      process.execPath,
      ...['--expose-gc', '--disable-warning=ExperimentalWarning', program],
      cluster.sandbox.layout.kubeconfig,
      namespace,
    ])
    const { pods, whole, kept } = JSON.parse(measured.out) as { pods: number; whole: number; kept: number }
    tell(`a pod: ${whole} bytes as it comes, ${kept} as it is kept`)
    expect(pods).toBe(PODS_HELD)
    expect(kept).toBeGreaterThan(200)
    expect(kept).toBeLessThan(2_000)
    expect(kept).toBeLessThan(whole / 4)
  })
})
