// One readiness probe. A program of its own, since a process is in one network namespace and one cgroup: it runs in the node's,
// and in the cgroup by which the agent knows a kubelet, so that its plaintext passes also where plaintext is refused.
// Must not live here: when to probe (pod-runner.ts).
import { request } from 'node:http'
import { connect } from 'node:net'

export interface ProbeRequest {
  readonly kind: 'http' | 'tcp'
  readonly host: string
  readonly port: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

export interface ProbeVerdict {
  readonly ok: boolean
  readonly message: string
}

/** One probe. HTTP succeeds with a status from 200 to 399, as kubelet's does. */
export function probe(ask: ProbeRequest): Promise<ProbeVerdict> {
  return new Promise((resolve) => {
    const done = (ok: boolean, message: string): void => resolve({ ok, message })
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
