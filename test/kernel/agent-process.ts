// An agent to be killed: opens the kernel half, enrols the pods it is told and says on stdout what it accepted, a JSON line
// each. Must not live here: expectations.
import { cgroupId } from '../../native/bpf/index.ts'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import { transport } from '../../agent/io/index.ts'
import type { ConnectionHandler } from '../../agent/io/connection.ts'
import type { PodHandle } from '../../agent/node/redirect/contract.ts'

interface Orders {
  readonly cgroup: string
  readonly agentCgroup: string
  readonly pinRoot: string
  readonly pods: readonly PodHandle[]
}

const orders = JSON.parse(process.argv[2] as string) as Orders
const say = (line: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
const redirect = await openRedirect({
  cgroup: orders.cgroup,
  agentCgroupIds: [cgroupId(orders.agentCgroup)],
  pinRoot: orders.pinRoot,
})
for (const pod of orders.pods) {
  const listeners = await redirect.enroll(pod)
  for (const kind of ['outbound', 'hbone', 'plaintext'] as const) {
    const handler: ConnectionHandler = {
      onOpen(connection, info) {
        const original = redirect.originalDestination(connection.fd)
        say({ accepted: kind, uid: pod.uid, original, local: info.local, pid: process.pid })
        connection.write(Buffer.from(`agent ${process.pid}`))
      },
      onRead() {},
      onDrain() {},
      onEnd: (connection) => connection.end(),
      onClose() {},
    }
    await transport.listen({ fd: listeners[kind], handler })
  }
}
say({ ready: true, enrolled: redirect.enrolled() })
