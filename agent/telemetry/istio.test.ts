// Istio's names and labels, all of them, in every series.
import { describe, expect, it } from 'vitest'
import { parseIdentity } from '../mesh/identity.ts'
import { sampleService, sampleWorkload } from '../mesh/samples.ts'
import { Metrics } from './exposition.ts'
import { HttpMetrics, ISTIO_BUCKETS, TcpMetrics, type Edge } from './istio.ts'
import { parseExposition } from './samples.ts'

const client = sampleWorkload({ name: 'frontend', namespace: 'shop', labels: { app: 'fe', version: 'v3' } })
const server = sampleWorkload({ name: 'backend', locality: { region: 'r', zone: 'z', subzone: '' } })
const edge: Edge = {
  reporter: 'waypoint',
  source: client,
  sourceIdentity: parseIdentity('spiffe://cluster.local/ns/shop/sa/frontend'),
  destination: server,
  destinationIdentity: undefined,
  service: sampleService({ name: 'backend' }),
  security: 'mutual_tls',
}

async function scrape(fill: (metrics: Metrics) => void) {
  const metrics = new Metrics('test', '0')
  fill(metrics)
  return parseExposition(await metrics.text()).samples.filter(
    (sample) => sample.name.startsWith('istio_') && sample.name !== 'istio_build',
  )
}

/** What Kiali needs in every series, or it skips it. */
const KIALI = [
  'source_workload_namespace',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'destination_service_namespace',
  'destination_service',
  'destination_service_name',
  'destination_workload_namespace',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'request_protocol',
  'response_flags',
  'reporter',
  'connection_security_policy',
]

describe('HTTP metrics', () => {
  it('carry every label of a request', async () => {
    const samples = await scrape((metrics) => {
      const http = new HttpMetrics(metrics)
      const series = http.edge(edge, 'http')
      series.record(200, '', '-', 12, 300, 4000)
      series.record(200, '', '-', 7, 300, 4000)
      series.record(503, '', 'UO', 1, 300, 100)
      expect(http.edge({ ...edge }, 'http')).toBe(series)
    })
    const total = samples.filter((sample) => sample.name === 'istio_requests_total')
    expect(
      total.map((sample) => [sample.labels['response_code'], sample.labels['response_flags'], sample.value]),
    ).toEqual([
      ['200', '-', 2],
      ['503', 'UO', 1],
    ])
    expect(total[0]?.labels).toEqual({
      reporter: 'waypoint',
      source_workload: 'frontend',
      source_canonical_service: 'frontend',
      source_canonical_revision: 'latest',
      source_workload_namespace: 'shop',
      source_principal: 'spiffe://cluster.local/ns/shop/sa/frontend',
      source_app: 'fe',
      source_version: 'v3',
      source_cluster: 'c',
      destination_service: 'backend.default.svc.cluster.local',
      destination_service_namespace: 'default',
      destination_service_name: 'backend',
      destination_workload: 'backend',
      destination_canonical_service: 'backend',
      destination_canonical_revision: 'latest',
      destination_workload_namespace: 'default',
      destination_principal: 'unknown',
      destination_app: 'backend',
      destination_version: 'latest',
      destination_cluster: 'c',
      request_protocol: 'http',
      response_code: '200',
      grpc_response_status: '',
      response_flags: '-',
      connection_security_policy: 'mutual_tls',
    })
    const buckets = samples.filter((sample) => sample.name === 'istio_request_duration_milliseconds_bucket')
    expect(new Set(buckets.map((sample) => sample.labels['le']))).toEqual(
      new Set([...ISTIO_BUCKETS.map(String), '+Inf']),
    )
    const under10 = buckets.find((sample) => sample.labels['le'] === '10' && sample.labels['response_code'] === '200')
    expect(under10?.value).toBe(1)
  })

  it('say unknown for what is not known, and keep protocols apart', async () => {
    const nobody: Edge = {
      ...edge,
      source: undefined,
      sourceIdentity: undefined,
      destination: undefined,
      service: undefined,
      security: 'none',
    }
    const samples = await scrape((metrics) => {
      const http = new HttpMetrics(metrics)
      http.edge(nobody, 'grpc').record(200, '14', '-', 1, 1, 1)
      http.edge(nobody, 'http').record(404, '', 'NR', 1, 1, 1)
      http.messages(nobody, 200, '0', '-', 3, 2)
    })
    for (const sample of samples)
      for (const label of KIALI) expect(sample.labels[label], `${sample.name} ${label}`).toBeTruthy()
    const grpc = samples.find((sample) => sample.labels['request_protocol'] === 'grpc')
    expect(grpc?.labels).toMatchObject({
      source_workload: 'unknown',
      grpc_response_status: '14',
      destination_service: 'unknown',
    })
    expect(samples.find((sample) => sample.name === 'istio_response_messages_total')?.value).toBe(3)
  })

  it('keep identities of the same workloads apart', () => {
    const http = new HttpMetrics(new Metrics('test', '0'))
    const other = { ...edge, sourceIdentity: parseIdentity('spiffe://cluster.local/ns/shop/sa/other') }
    expect(http.edge(edge, 'http')).not.toBe(http.edge(other, 'http'))
  })
})

describe('TCP metrics', () => {
  it('carry every label of a connection', async () => {
    const samples = await scrape((metrics) => {
      const tcp = new TcpMetrics(metrics)
      const series = tcp.edge({ ...edge, reporter: 'destination' })
      series.opened.value++
      series.sent.add(10)
      tcp.edge(edge, 'DENY').failed.value++
      expect(tcp.edge({ ...edge, reporter: 'destination' })).toBe(series)
    })
    const sent = samples.find((sample) => sample.name === 'istio_tcp_sent_bytes_total' && sample.value > 0)
    expect(sent?.value).toBe(10)
    expect(sent?.labels).toMatchObject({
      reporter: 'destination',
      request_protocol: 'tcp',
      response_flags: '-',
      source_region: 'unknown',
      destination_region: 'r',
      destination_zone: 'z',
    })
    const failed = samples.find((sample) => sample.name === 'istio_tcp_connections_failed_total' && sample.value > 0)
    expect(failed?.labels['response_flags']).toBe('DENY')
    for (const label of KIALI) expect(sent?.labels[label], label).toBeTruthy()
  })
})
