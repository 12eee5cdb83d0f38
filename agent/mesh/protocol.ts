// What a service port speaks, told by its appProtocol, its name's prefix and a few well-known numbers, as Istio selects.
import type { AppProtocol } from './service.ts'

const WORDS: Readonly<Record<string, AppProtocol>> = {
  http: 'http',
  http2: 'http2',
  grpc: 'grpc',
  'grpc-web': 'http',
  https: 'tls',
  tls: 'tls',
  tcp: 'tcp',
  'tcp-tls': 'tcp',
  mongo: 'tcp',
  mysql: 'tcp',
  redis: 'tcp',
  // Kubernetes' own names (Service spec.ports.appProtocol).
  'kubernetes.io/h2c': 'http2',
  'kubernetes.io/ws': 'http',
  'kubernetes.io/wss': 'tls',
}

/** Server-first or plain TCP by convention: detection would wait for bytes that do not come. SMTP, DNS, MySQL, MongoDB. */
const TCP_PORTS: readonly number[] = [25, 53, 3306, 27017]

/** The protocol of a TCP port. `appProtocol` wins over the name; `unknown` is to be detected from the first bytes. */
export function protocolOf(port: number, name: string, appProtocol: string | undefined): AppProtocol {
  const word = (appProtocol || name).toLowerCase()
  const known = Object.hasOwn(WORDS, word) ? WORDS[word] : undefined
  if (known) return known
  if (word.startsWith('grpc-web')) return 'http'
  if (word.startsWith('tcp-tls')) return 'tcp'
  const dash = word.indexOf('-')
  const prefix = dash < 0 ? word : word.slice(0, dash)
  const byPrefix = Object.hasOwn(WORDS, prefix) ? WORDS[prefix] : undefined
  return byPrefix ?? (TCP_PORTS.includes(port) ? 'tcp' : 'unknown')
}
