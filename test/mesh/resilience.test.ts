// What breaks and comes back: programs killed while a capture looks on, weights edited under load, full pools, ejection,
// enrolment by label.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LoadSummary } from '../../agent/sandbox/app/load.ts'
import { Capture } from '../../agent/sandbox/capture.ts'
import { eventually, openWorld, shop } from '../world/sandbox.ts'

let world: Awaited<ReturnType<typeof openWorld>>
beforeAll(async () => {
  world = await openWorld(shop)
})
afterAll(async () => {
  await world?.close()
})

const URL_API = 'http://my-service/api/x'

async function load(...args: string[]): Promise<LoadSummary> {
  const { out, err } = await world.exec('frontend', ['ambit', 'app', 'load', URL_API, ...args])
  if (!out.startsWith('{')) throw new Error(err)
  return JSON.parse(out) as LoadSummary
}

const works = async (): Promise<boolean> => (await world.status('frontend', ['-m', '3', URL_API])).status === 200

describe('editing the YAML under load', () => {
  it('moves the split within a second, and no request fails', async () => {
    const running = load('-d', '6', '-c', '8')
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    world.edit('40-traffic.yaml', (text) =>
      text.replace('weight: 80', 'weight: 0').replace('weight: 20', 'weight: 100'),
    )
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    const after = await load('-n', '300', '-c', '4')
    expect(after.versions).toEqual({ v2: 300 })
    const whole = await running
    expect(whole.errors).toEqual({})
    expect(Object.keys(whole.codes)).toEqual(['200'])
    world.edit('40-traffic.yaml', (text) =>
      text.replace('weight: 0', 'weight: 80').replace('weight: 100', 'weight: 20'),
    )
    await eventually('both again', async () => Object.keys((await load('-n', '100')).versions).length === 2)
  })

  it('follows scaling without a failed request', async () => {
    const running = load('-d', '8', '-c', '8')
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    world.edit('20-my-service.yaml', (text) => text.replace('replicas: 2', 'replicas: 3'))
    await eventually(
      'three',
      () => world.sandbox.pods.filter((pod) => pod.set.name === 'my-service-v1' && pod.ready).length === 3,
    )
    world.edit('20-my-service.yaml', (text) => text.replace('replicas: 3', 'replicas: 1'))
    const whole = await running
    expect(whole.errors).toEqual({})
    expect(Object.keys(whole.codes)).toEqual(['200'])
    world.edit('20-my-service.yaml', (text) => text.replace('replicas: 1', 'replicas: 2'))
    await eventually(
      'two',
      () => world.sandbox.pods.filter((pod) => pod.set.name === 'my-service-v1' && pod.ready).length === 2,
    )
  })
})

describe('kill -9', () => {
  const secret = `marker-${Math.random().toString(36).slice(2)}`
  const post = async (): Promise<boolean> =>
    (await world.status('frontend', ['-m', '3', '-d', secret, 'http://my-service/api/secret'])).status === 200

  it.each(['agent-node-1', 'agent-node-2', 'control', 'waypoint'])(
    'of %s: it comes back, traffic resumes, nothing was ever in the clear',
    async (program) => {
      const captures = []
      for (const node of world.sandbox.layout.nodes)
        captures.push(await Capture.start(world.sandbox.layout.home, node, `-${program}`))
      const pidOf = (): number | undefined =>
        program === 'waypoint' ? world.pod('waypoint').pid : world.sandbox.programs()[program]
      for (let index = 0; index < 5; index++) expect(await post()).toBe(true)
      const before = pidOf()!
      process.kill(before, 'SIGKILL')
      // While it is away: whatever happens to these, they must not go out in the clear.
      for (let index = 0; index < 10; index++) await post()
      await eventually('another process', () => pidOf() !== undefined && pidOf() !== before, 20_000)
      await eventually('traffic resumes', post, 30_000)
      for (let index = 0; index < 5; index++) expect(await post()).toBe(true)
      for (const capture of captures) {
        await capture.stop()
        expect(capture.count(secret)).toBe(0)
      }
      expect(captures.reduce((sum, capture) => sum + capture.tlsRecords(), 0)).toBeGreaterThan(0)
    },
    90_000,
  )
})

describe('circuit breaking', () => {
  it('answers 503 with flag UO when the pool is full', async () => {
    expect(await works()).toBe(true)
    world.edit('35-subsets.yaml', (text) =>
      text.replace(
        /connectionPool:[\s\S]*?outlierDetection:/,
        'connectionPool:\n      tcp: {maxConnections: 1}\n      http: {http1MaxPendingRequests: 1}\n    outlierDetection:',
      ),
    )
    await eventually('503 among the answers', async () => {
      const { out } = await world.exec('frontend', [
        'ambit',
        'app',
        'load',
        `${URL_API}?delay=300`,
        '-n',
        '40',
        '-c',
        '20',
      ])
      const codes = (JSON.parse(out) as LoadSummary).codes
      return (codes['503'] ?? 0) > 0 && (codes['200'] ?? 0) > 0
    })
    await eventually('the flag in the access log', () =>
      world.logs('pod_shop_waypoint').some((line) => line['response_flags'] === 'UO' && line['response_code'] === 503),
    )
  })

  it('ejects an endpoint that fails, and takes it back', async () => {
    world.edit('35-subsets.yaml', (text) =>
      text
        .replace(
          /connectionPool:[\s\S]*?outlierDetection:[\s\S]*?loadBalancer:/,
          `outlierDetection:
      consecutive5xxErrors: 3
      interval: 1s
      baseEjectionTime: 3s
      maxEjectionPercent: 100
    loadBalancer:`,
        )
        .replace('LEAST_REQUEST', 'ROUND_ROBIN'),
    )
    world.edit('40-traffic.yaml', (text) =>
      text.replace('weight: 80', 'weight: 100').replace('weight: 20', 'weight: 0'),
    )
    const [bad, good] = world.sandbox.pods.filter((pod) => pod.set.name === 'my-service-v1')
    await eventually('both answer', async () => Object.keys((await load('-n', '40')).pods).length === 2)
    const set = (rate: number): Promise<unknown> =>
      world.sh(`shop/${bad!.name}`, `curl -sS -X PUT localhost:8080/-/behaviour -d '{"failRate":${rate}}'`)
    await set(1)
    await load('-n', '30', '-c', '1')
    const away = await load('-n', '60', '-c', '1')
    expect(away.pods).toEqual({ [good!.name]: 60 })
    await set(0)
    await eventually('back', async () => bad!.name in (await load('-n', '20', '-c', '1')).pods, 20_000)
  })
})

describe('a namespace’s label', () => {
  it('enrols and frees running pods without a restart', async () => {
    const outsider = world.pod('outsider')
    const pid = outsider.pid
    const enrolled = async (): Promise<boolean | undefined> =>
      (await world.sandbox.status()).pods.find((pod) => pod.name === outsider.name)?.enrolled
    expect(await enrolled()).toBe(false)
    world.edit('00-namespace.yaml', (text) =>
      text.replace('name: outside', 'name: outside\n  labels: {istio.io/dataplane-mode: ambient}'),
    )
    await eventually('enrolled', enrolled)
    const refused = await world.status('outsider', [URL_API.replace('my-service', 'my-service.shop')])
    expect(refused).toMatchObject({ status: 403, body: 'RBAC: access denied' })
    world.edit('00-namespace.yaml', (text) => text.replace('\n  labels: {istio.io/dataplane-mode: ambient}', ''))
    await eventually('free', async () => (await enrolled()) === false)
    expect(world.pod('outsider').pid).toBe(pid)
  })
})
