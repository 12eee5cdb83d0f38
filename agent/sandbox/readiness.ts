// When a pod is ready: its readiness probes as Kubernetes defines them. Where a container runs the echo app and has no
// probe, its ports must listen (read from /proc, without traffic); any other container without a probe is ready once it
// runs. Must not live here: making a connection (world/prober.ts).
import { readFileSync } from 'node:fs'
import type { Container } from '../config/pod.ts'

export interface ProbeSpec {
  readonly kind: 'http' | 'tcp'
  readonly port: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly initialDelayMs: number
  readonly periodMs: number
  readonly timeoutMs: number
  readonly failureThreshold: number
  readonly successThreshold: number
}

function record(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
}

/** The container's readinessProbe; undefined if it has none of kind httpGet or tcpSocket. Defaults are Kubernetes'. */
export function probeOf(container: Container): ProbeSpec | undefined {
  const spec = record(container['readinessProbe'])
  const http = record(spec?.['httpGet'])
  const target = http ?? record(spec?.['tcpSocket'])
  if (!spec || !target) return undefined
  const wanted = target['port']
  const port = typeof wanted === 'number' ? wanted : container.ports?.find((one) => one.name === wanted)?.containerPort
  if (port === undefined) return undefined
  const seconds = (name: string, fallback: number): number => {
    const value = spec[name]
    return typeof value === 'number' && value > 0 ? value : fallback
  }
  const headers: Record<string, string> = {}
  for (const item of Array.isArray(http?.['httpHeaders']) ? (http['httpHeaders'] as unknown[]) : []) {
    const header = record(item)
    const value = header?.['value']
    if (typeof header?.['name'] === 'string') headers[header['name']] = typeof value === 'string' ? value : ''
  }
  return {
    kind: http ? 'http' : 'tcp',
    port,
    path: typeof http?.['path'] === 'string' ? http['path'] : '/',
    headers,
    initialDelayMs: seconds('initialDelaySeconds', 0) * 1000,
    periodMs: seconds('periodSeconds', 10) * 1000,
    timeoutMs: seconds('timeoutSeconds', 1) * 1000,
    failureThreshold: seconds('failureThreshold', 3),
    successThreshold: seconds('successThreshold', 1),
  }
}

/** TCP ports with a listener in the network namespace of a process. */
export function listeningPorts(pid: number): Set<number> {
  const ports = new Set<number>()
  for (const table of ['tcp', 'tcp6']) {
    let text = ''
    try {
      text = readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
    } catch {
      continue
    }
    for (const line of text.split('\n').slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/)
      // 0A is TCP_LISTEN (include/net/tcp_states.h).
      if (state === '0A' && local) ports.add(Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16))
    }
  }
  return ports
}
