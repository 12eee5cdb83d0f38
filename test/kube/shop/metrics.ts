// Metrics of a real cluster with the chart and the shop: a real Prometheus finds the programs by the chart's annotations and
// shows who talked to whom; what they expose is clean by Prometheus' own tool; what rules and dashboards ask for is there.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { tell, type Cluster } from '../../world/kube.ts'
import type { KubeMesh } from '../../world/kube-mesh.ts'
import { Prometheus, type PodLike } from '../../world/prometheus.ts'
import { alerts, dashboardQueries, dashboards, familyOf, groupLabels, RULES, selectorsOf } from '../../world/promql.ts'
import { eventually, root, run, type Ran } from '../../world/sandbox.ts'

/** Families that have no series until something is wrong, or happens that does not happen here. */
const SILENT = new Set([
  'ambit_series_overflow_total',
  'ambit_connections_refused_total',
  'ambit_repairs_total',
  'ambit_tcp_retransmits_total',
])

/** Istio's name, which dashboards ask for. Everything else is as Prometheus would have it. */
const REMARKS = ['istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"']

export function metrics(of: () => KubeMesh): void {
  describe('the metrics of a cluster', () => {
    let cluster: Cluster
    let prometheus: Prometheus
    let pods: readonly PodLike[]

    const ours = (app: string): PodLike[] => pods.filter((pod) => pod.metadata.labels?.['app'] === app)
    const waypoints = (): PodLike[] =>
      pods.filter((pod) => pod.metadata.labels?.['gateway.networking.k8s.io/gateway-name'] === 'waypoint')
    const scrape = async (pod: PodLike): Promise<string> => {
      const { name, namespace } = pod.metadata
      const path = `/api/v1/namespaces/${namespace}/pods/${name}:15020/proxy/metrics`
      return (await cluster.kubectl(['get', '--raw', path])).out
    }
    const call = (from: string, url: string): Promise<Ran> => {
      const [namespace = '', deployment = ''] = from.split('/')
      const curl = ['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '-m', '10', url]
      return cluster.kubectl(['-n', namespace, 'exec', `deploy/${deployment}`, '--', ...curl])
    }
    /**
     * Something of everything: answers, failures, refusals by policy and for plaintext, connections between pods of a node and
     * across nodes, a port where nobody listens.
     */
    const talk = async (): Promise<void> => {
      const service = 'http://my-service.shop'
      const addresses = (app: string): string[] => ours(app).map((pod) => pod.status.podIP ?? '')
      expect((await call('shop/frontend-deployment', `${service}/api/items`)).out).toBe('200')
      expect((await call('shop/frontend-deployment', `${service}/api/items?status=503`)).out).toBe('503')
      expect((await call('shop/intruder', `${service}/api/items`)).out).toBe('403')
      for (const address of addresses('my-service'))
        expect((await call('shop/intruder', `http://${address}:8080/api/items`)).out).not.toBe('200')
      expect((await call('outside/outsider', `http://${addresses('my-service')[0]}:8080/api/items`)).out).toBe('000')
      for (const address of addresses('frontend'))
        expect((await call('shop/frontend-deployment', `http://${address}:8080/`)).out).toBe('200')
      await call('shop/frontend-deployment', `http://${addresses('frontend')[0]}:9`)
    }

    beforeAll(async () => {
      ;({ cluster } = of())
      await eventually(
        'the shop and its waypoint are ready',
        async () => {
          const { items } = JSON.parse((await cluster.kubectl(['get', 'pods', '-A', '-o', 'json'])).out) as {
            items: (PodLike & { status: { conditions?: { type: string; status: string }[] } })[]
          }
          pods = items
          const ready = (pod: (typeof items)[number]): boolean =>
            pod.status.conditions?.some((one) => one.type === 'Ready' && one.status === 'True') ?? false
          return waypoints().length > 0 && ours('my-service').length === 4 && items.every(ready)
        },
        90_000,
      )
      prometheus = await Prometheus.start(cluster.sandbox.layout.nodes[0]!.netns)
      prometheus.discover(pods)
      await eventually(
        'requests are answered',
        async () => (await call('shop/frontend-deployment', 'http://my-service.shop/api/items')).out === '200',
        30_000,
      )
      await talk()
    })
    afterAll(() => prometheus?.stop())

    it('are found by the annotations, each program once', async () => {
      const targets = await eventually(
        'every program is scraped',
        async () => {
          const found = await prometheus.targets()
          expect(found.length).toBeGreaterThan(0)
          expect(found.filter((target) => target.health !== 'up')).toEqual([])
          return found
        },
        20_000,
      )
      const expected = [...ours('ambit-agent'), ...ours('ambit-control'), ...waypoints()]
      expect(expected.length).toBeGreaterThanOrEqual(5)
      expect(targets.map((target) => String(target.labels['pod'])).sort()).toEqual(
        expected.map((pod) => pod.metadata.name).sort(),
      )
      for (const pod of expected) {
        const target = targets.find((one) => one.labels['pod'] === pod.metadata.name)!
        expect(target.scrapeUrl).toBe(`http://${pod.status.podIP}:15020/metrics`)
        expect(target.labels).toMatchObject({ namespace: pod.metadata.namespace, node: pod.spec.nodeName })
      }
    })

    it("are clean by Prometheus' own tool", async () => {
      for (const pod of [ours('ambit-agent')[0]!, ours('ambit-control')[0]!, waypoints()[0]!]) {
        const text = await scrape(pod)
        expect(text).toContain('istio_build{')
        const checked = await run(['promtool', 'check', 'metrics'], { input: text })
        const remarks = (checked.out + checked.err).split('\n').filter((line) => line !== '' && !REMARKS.includes(line))
        expect(remarks, pod.metadata.name).toEqual([])
      }
    })

    it('show who talked to whom', async () => {
      const pairs = async (query: string): Promise<string[]> => {
        const by = 'source_workload, destination_workload, connection_security_policy'
        return (await prometheus.query(`sum by (${by}) (${query}) > 0`)).map(({ metric }) =>
          Object.values(metric).join(' '),
        )
      }
      await eventually(
        'the split and the policy are seen at the waypoint',
        async () => {
          for (let n = 0; n < 5; n++) await call('shop/frontend-deployment', 'http://my-service.shop/api/items')
          const seen = await pairs('istio_requests_total{reporter="waypoint",response_code="200"}')
          return (
            ['my-service-v1', 'my-service-v2'].every((version) =>
              seen.includes(`mutual_tls ${version} frontend-deployment`),
            ) && seen
          )
        },
        60_000,
      )
      const denied = await prometheus.query('sum by (source_workload) (istio_requests_total{response_code="403"}) > 0')
      expect(denied.map(({ metric }) => metric['source_workload'])).toEqual(['intruder'])
      const opened = await pairs('istio_tcp_connections_opened_total{reporter="source"}')
      expect(opened.filter((pair) => pair.endsWith(' frontend-deployment')).length).toBeGreaterThan(0)
    })

    it('of a node tell of the pods of that node', async () => {
      for (const agent of ours('ambit-agent')) {
        const { nodeName } = agent.spec
        const proved = await prometheus.query(`ambit_pod_protected{node="${nodeName}"} == 1`)
        const enrolled = pods.filter(
          (pod) => pod.metadata.namespace === 'shop' && pod.spec.nodeName === nodeName && !waypoints().includes(pod),
        )
        expect(proved.map(({ metric }) => String(metric['pod'])).sort()).toEqual(
          enrolled.map((pod) => pod.metadata.name).sort(),
        )
      }
    })

    it('are as many as the page says at most, and none is refused', async () => {
      const samples = await prometheus.query('max by (pod) (scrape_samples_scraped)')
      tell(`series: ${samples.map(({ metric, value }) => `${metric['pod']} ${value[1]}`).join(', ')}`)
      for (const { value } of samples) expect(Number(value[1])).toBeLessThan(3_000)
      expect(await prometheus.query('ambit_series_overflow_total > 0')).toEqual([])
    })

    it('have every series that the alert rules and dashboards ask for', async () => {
      await talk()
      // The kernel tells of a connection's round trips when it has ended, or went on for long.
      await eventually(
        'round trips are counted',
        async () => (await prometheus.query('ambit_tcp_rtt_seconds_count')).length > 0,
        30_000,
      )
      const missing: string[] = []
      const known = await prometheus.api<Record<string, unknown>>('metadata')
      const seriesOf = new Map<string, readonly Readonly<Record<string, string>>[]>()
      const series = async (match: string): Promise<readonly Readonly<Record<string, string>>[]> => {
        const found =
          seriesOf.get(match) ?? (await prometheus.api<Record<string, string>[]>('series', { 'match[]': match }))
        seriesOf.set(match, found)
        return found
      }
      for (const { where, expr } of [...alerts(), ...dashboardQueries()]) {
        // It is PromQL, and can be answered.
        await prometheus.query(expr)
        const labels = new Set<string>()
        for (const { name, text } of selectorsOf(expr)) {
          if (SILENT.has(name)) {
            if (known[familyOf(name)] === undefined) missing.push(`${where}: ${name} is not exposed`)
            continue
          }
          // A condition on values may select nothing while all is well; the labels it is about are there.
          const all = await series(name)
          if (all.length === 0) missing.push(`${where}: ${name}`)
          for (const one of all) for (const label of Object.keys(one)) labels.add(label)
          for (const label of selectorsOf(text).flatMap((one) => one.labels))
            if (!all.some((one) => label in one)) missing.push(`${where}: ${name} has no label ${label}`)
        }
        if (labels.size > 0)
          for (const label of groupLabels(expr)) if (!labels.has(label)) missing.push(`${where}: no label ${label}`)
      }
      expect(missing).toEqual([])
    })

    it('come with objects for the operator and Grafana that say the same, when they are asked for', async () => {
      const { helm } = cluster.sandbox.status()
      const chart = join(root, 'deploy/chart')
      const wanted = ['podMonitor', 'rules', 'dashboards'].flatMap((what) => ['--set', `metrics.${what}.enabled=true`])
      const rendered = await run([helm, 'template', 'x', chart, '-s', 'templates/monitoring.yaml', ...wanted])
      expect(rendered.code, rendered.err).toBe(0)
      interface Rendered {
        readonly kind: string
        readonly metadata: { readonly name: string }
        readonly data: Readonly<Record<string, string>>
        readonly spec: {
          readonly groups: unknown
          readonly selector: {
            readonly matchExpressions?: readonly { readonly key: string; readonly values: readonly string[] }[]
            readonly matchLabels?: Readonly<Record<string, string>>
          }
          readonly podMetricsEndpoints: readonly { readonly port: string; readonly honorLabels: boolean }[]
        }
      }
      const objects = parseAllDocuments(rendered.out)
        .map((document) => document.toJS() as Rendered | null)
        .filter((one) => one !== null)
      const ofKind = (kind: string): Rendered[] => objects.filter((one) => one.kind === kind)
      // Each program is chosen by one of them, and has the port they name.
      const chosen = ofKind('PodMonitor').flatMap(({ spec }) => {
        const { matchExpressions = [], matchLabels = {} } = spec.selector
        expect(spec.podMetricsEndpoints).toMatchObject([{ port: 'metrics', honorLabels: true }])
        const wants = [
          ...matchExpressions,
          ...Object.entries(matchLabels).map(([key, value]) => ({ key, values: [value] })),
        ]
        return pods.filter((pod) => wants.every(({ key, values }) => values.includes(pod.metadata.labels?.[key] ?? '')))
      })
      expect(new Set(chosen)).toEqual(new Set([...ours('ambit-agent'), ...ours('ambit-control'), ...waypoints()]))
      for (const pod of chosen)
        expect(pod.spec.containers.flatMap((one) => one.ports ?? [])).toContainEqual(
          expect.objectContaining({ name: 'metrics', containerPort: 15_020 }),
        )
      expect(ofKind('PrometheusRule')[0]!.spec.groups).toEqual(
        (parse(readFileSync(RULES, 'utf8')) as { groups: unknown }).groups,
      )
      const shipped = ofKind('ConfigMap').map(({ data }) => JSON.parse(Object.values(data)[0]!) as unknown)
      expect(shipped).toEqual(dashboards())
      expect((await run([helm, 'template', 'x', chart])).out).not.toMatch(/monitoring.coreos.com|ambit-dashboard/)
    })

    it('evaluate every shipped alert, and none fires for a cluster that is well', async () => {
      interface Groups {
        groups: { rules: { name: string; health: string; lastError?: string; state: string }[] }[]
      }
      const rules = await eventually('every rule is evaluated', async () => {
        const all = (await prometheus.api<Groups>('rules')).groups.flatMap((group) => group.rules)
        expect(all.filter((rule) => rule.health === 'unknown')).toEqual([])
        return all
      })
      expect(rules.map((rule) => rule.name).sort()).toEqual(
        alerts()
          .map((alert) => alert.where)
          .sort(),
      )
      expect(rules.filter((rule) => rule.health !== 'ok')).toEqual([])
      expect(rules.filter((rule) => rule.state === 'firing').map((rule) => rule.name)).toEqual([])
    })
  })
}
