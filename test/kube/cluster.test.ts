// The cluster that `ambit sandbox up --kubernetes` makes works by itself, before anything of Ambit is in it: pods on two
// nodes, Services, DNS, exec, logs; its nodes do not see each other; nothing is left of it, even when it crashed.
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ownerOf } from '../../agent/sandbox/claim.ts'
import type { KubeStatus } from '../../agent/sandbox/kube/cluster.ts'
import { ensureBuilt } from '../../agent/sandbox/kube/programs.ts'
import { BUILD_MS, kubectl, processesOf, tell, tracesOf } from '../world/kube.ts'
import { ambit, eventually, root, run, uniqueName, type Ran } from '../world/sandbox.ts'

const APPS = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      nodeSelector: { kubernetes.io/hostname: node-2 }
      containers:
        - name: web
          image: ambit.local/busybox:1
          command: [sh, -c, 'mkdir /tmp/www; echo "hello from $HOSTNAME" >/tmp/www/index.html; echo serving; exec httpd -f -p 8080 -h /tmp/www']
          readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec:
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop }
spec:
  nodeSelector: { kubernetes.io/hostname: node-1 }
  containers:
    - name: client
      image: ambit.local/busybox:1
      command: [sh, -c, 'trap "exit 0" TERM; echo waiting; while :; do sleep 1; done']
---
apiVersion: v1
kind: Pod
metadata: { name: host, namespace: shop }
spec:
  hostNetwork: true
  hostPID: true
  nodeSelector: { kubernetes.io/hostname: node-1 }
  containers:
    - name: host
      image: ambit.local/busybox:1
      command: [sleep, '100000']
      volumeMounts: [{ name: var, mountPath: /node }]
      securityContext: { privileged: true }
  volumes:
    - name: var
      hostPath: { path: /srv/made-by-a-pod, type: DirectoryOrCreate }
`

const SYSCTLS = ['vm/overcommit_memory', 'kernel/panic', 'kernel/panic_on_oops'].map((name) => `/proc/sys/${name}`)

describe('a Kubernetes sandbox', () => {
  const name = uniqueName()
  let status: KubeStatus
  let id: number
  const settings = SYSCTLS.map((file) => readFileSync(file, 'utf8'))
  const ask = (args: readonly string[], input?: string): Promise<Ran> =>
    kubectl(status.kubectl, status.kubeconfig, args, input)
  const inClient = (command: string): Promise<Ran> => ask(['-n', 'shop', 'exec', 'client', '--', 'sh', '-c', command])

  beforeAll(async () => {
    await ensureBuilt(root, tell, new Promise(() => undefined))
    const since = performance.now()
    const up = await run([ambit, 'sandbox', 'up', '--kubernetes', '--name', name, '--detach', '--timeout', '120'], {
      timeoutMs: 180_000,
    })
    tell(`up after ${((performance.now() - since) / 1000).toFixed(1)} s`)
    expect(up.err + up.out).toContain('export KUBECONFIG=')
    status = JSON.parse((await run([ambit, 'sandbox', 'status', '--name', name, '-o', 'json'])).out) as KubeStatus
    id = Number(/^ambit-(\d+)-/.exec(status.nodes[0]!.netns)![1])
    expect((await ask(['apply', '-f', '-'], APPS)).err).toBe('')
    const ready = await ask(['-n', 'shop', 'wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s'])
    expect(ready.code, ready.err).toBe(0)
  }, BUILD_MS)

  afterAll(async () => {
    await run([ambit, 'sandbox', 'down', '--name', name])
  })

  it('spreads pods where they are asked to go, with addresses of their nodes', async () => {
    const { items } = JSON.parse((await ask(['-n', 'shop', 'get', 'pods', '-o', 'json'])).out) as {
      items: { metadata: { name: string }; spec: { nodeName: string }; status: { podIP: string } }[]
    }
    const places = Object.fromEntries(
      items.map((pod) => [pod.metadata.name.replace(/-.*/, ''), [pod.spec.nodeName, pod.status.podIP]]),
    )
    expect(places['client']).toEqual(['node-1', expect.stringMatching(/^10\.\d+\.1\.\d+$/)])
    expect(places['web']).toEqual(['node-2', expect.stringMatching(/^10\.\d+\.2\.\d+$/)])
    expect(places['host']).toEqual(['node-1', status.nodes[0]!.address])
  })

  it('lets a pod reach one of the other node through a Service, by short and by full name', async () => {
    for (const host of ['web', 'web.shop', 'web.shop.svc.cluster.local'])
      expect((await inClient(`wget -q -O - http://${host}/`)).out).toMatch(/^hello from web-/)
  })

  it('shows logs, runs commands with their exit code, forwards standard input', async () => {
    expect((await ask(['-n', 'shop', 'logs', 'deploy/web'])).out).toBe('serving\n')
    expect((await inClient('exit 7')).code).toBe(7)
    const echoed = await run([ambit, 'sandbox', 'exec', '--name', name, 'shop/client', '--', 'cat'], { input: 'abc' })
    expect(echoed).toMatchObject({ code: 0, out: 'abc' })
  })

  it('gives pods a token that the API server takes, with the rights of their account and no others', async () => {
    const token = (await inClient('cat /var/run/secrets/kubernetes.io/serviceaccount/token')).out
    const review = await ask(
      ['create', '-o', 'json', '-f', '-'],
      JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } }),
    )
    expect(JSON.parse(review.out)).toMatchObject({
      status: { authenticated: true, user: { username: 'system:serviceaccount:shop:default' } },
    })
    const denied = await ask(['auth', 'can-i', 'list', 'pods', '--as=system:serviceaccount:shop:default'])
    expect(denied.out.trim()).toBe('no')
  })

  it('keeps the nodes apart: processes, pins, cgroups and files of one are not on the other nor on the machine', async () => {
    const onHost = (command: string): Promise<Ran> => ask(['-n', 'shop', 'exec', 'host', '--', 'sh', '-c', command])
    const processes = (await onHost('ps -o args')).out
    expect(processes.match(/\/kubelet --config/g)).toHaveLength(1)
    expect(processes).toContain('while :; do sleep 1; done')
    expect(processes).not.toContain('httpd')
    expect((await onHost('touch /node/mark && echo made')).out).toBe('made\n')
    expect(await run(['ls', '/srv/made-by-a-pod'])).toMatchObject({ code: 2 })
    const cgroups = status.nodes.map((node) => readFileSync(`/proc/${node.pid}/cgroup`, 'utf8'))
    expect(cgroups[0]).toContain(`/ambit-${id}/node-1/system`)
    expect(cgroups[1]).toContain(`/ambit-${id}/node-2/system`)
  })

  it('starts a program again that was killed', async () => {
    const kubelet = status.programs.find((one) => one.name === 'kubelet-node-1')!
    process.kill(kubelet.pid!, 'SIGKILL')
    await eventually('the kubelet runs again', async () => {
      const now = JSON.parse((await run([ambit, 'sandbox', 'status', '--name', name, '-o', 'json'])).out) as KubeStatus
      const again = now.programs.find((one) => one.name === 'kubelet-node-1')!
      return again.restarts === 1 && again.pid !== null && again.pid !== kubelet.pid
    })
    await eventually('and serves', async () => (await inClient('echo yes')).out === 'yes\n', 30_000)
  })

  it("leaves nothing behind, and the machine's settings as they were, even when its process was killed", async () => {
    expect(SYSCTLS.map((file) => readFileSync(file, 'utf8'))).toEqual(settings)
    expect(processesOf(name).length).toBeGreaterThan(10)
    process.kill(ownerOf(name)!, 'SIGKILL')
    const down = await run([ambit, 'sandbox', 'down', '--name', name])
    expect(down).toMatchObject({ code: 0, err: '' })
    expect(await tracesOf(name, id)).toEqual([])
  })
})
