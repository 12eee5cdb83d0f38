// Measures what a held pod costs, in a process of its own (a test runner's heap is never still). Prints JSON on one line:
// bytes of heap a pod, as it comes and as it is kept. Needs --expose-gc. Arguments: kubeconfig, namespace.
import { silentLog } from '../../../agent/base/log.ts'
import { KubeClient } from '../../../agent/kube/client.ts'
import { connect } from '../../../agent/kube/connection.ts'
import { PODS, projectionOf } from '../../../agent/kube/mesh-kinds.ts'
import { Reflector } from '../../../agent/kube/reflector.ts'
import type { KubeObject } from '../../../agent/kube/resource.ts'

const [kubeconfig, namespace] = process.argv.slice(2)
const client = new KubeClient(await connect({ kubeconfig: kubeconfig! }))

async function heap(): Promise<number> {
  // Sockets and parsers let go of their last piece a little later.
  for (let at = 0; at < 3; at++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    globalThis.gc!()
  }
  return process.memoryUsage().heapUsed
}

const followed: Reflector<KubeObject>[] = []
async function grown(project: (object: KubeObject) => KubeObject): Promise<number> {
  const before = await heap()
  const reflector = new Reflector<KubeObject>({
    client,
    log: silentLog,
    resource: PODS,
    namespace: namespace!,
    project,
  })
  reflector.start(() => undefined)
  await reflector.synced
  followed.push(reflector)
  return Math.round(((await heap()) - before) / reflector.size)
}

// The first time warms everything up.
await grown(projectionOf(PODS))
const kept = await grown(projectionOf(PODS))
const whole = await grown((object) => object)
console.log(JSON.stringify({ pods: followed[0]!.size, whole, kept }))
await Promise.all(followed.map((reflector) => reflector.stop()))
client.close()
