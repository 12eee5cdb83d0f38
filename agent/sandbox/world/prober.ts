// Readiness probes, made from a node's network namespace as a kubelet makes them (its source address is the node's). A
// program of its own per node, since a process is in one network namespace: requests come as JSON lines on standard input,
// verdicts go out the same way, the end of input is its end. Must not live here: when to probe (supervise/readiness.ts).
import { request } from 'node:http'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

export interface ProbeRequest {
  readonly id: number
  readonly kind: 'http' | 'tcp'
  readonly host: string
  readonly port: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

export interface ProbeVerdict {
  readonly id: number
  readonly ok: boolean
  readonly message: string
}

/** One probe. HTTP succeeds with a status from 200 to 399, as kubelet's does. */
export function probe(ask: ProbeRequest): Promise<ProbeVerdict> {
  return new Promise((resolve) => {
    const done = (ok: boolean, message: string): void => resolve({ id: ask.id, ok, message })
    if (ask.kind === 'tcp') {
      const socket = connect({ host: ask.host, port: ask.port, timeout: ask.timeoutMs }, () => {
        socket.destroy()
        done(true, 'connected')
      })
      socket.on('timeout', () => {
        socket.destroy()
        done(false, `no connection within ${ask.timeoutMs} ms`)
      })
      socket.on('error', (error) => done(false, error.message))
      return
    }
    const outgoing = request(
      {
        host: ask.host,
        port: ask.port,
        path: ask.path,
        headers: { 'user-agent': 'kube-probe/1.36', connection: 'close', ...ask.headers },
        agent: false,
        signal: AbortSignal.timeout(ask.timeoutMs),
      },
      (response) => {
        const status = response.statusCode ?? 0
        response.destroy()
        done(status >= 200 && status < 400, `status ${status}`)
      },
    )
    outgoing.on('error', (error) => done(false, error.message))
    outgoing.end()
  })
}

/** Serves probes until standard input ends. Resolves with the exit code. */
export async function serveProbes(): Promise<number> {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === '') continue
    void probe(JSON.parse(line) as ProbeRequest).then((verdict) => process.stdout.write(`${JSON.stringify(verdict)}\n`))
  }
  return 0
}
