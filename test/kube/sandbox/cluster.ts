// The cluster that `ambit sandbox up --kubernetes` makes works by itself, without a mesh: pods on two nodes, Services, DNS, exec,
// logs; its nodes do not see each other; nothing is left of it, even when it crashed, which is its last test. Must not live here:
// images (image.ts).
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { ownerOf } from '../../../agent/sandbox/claim.ts'
import { DISK_ROOT } from '../../../agent/sandbox/kube/layout.ts'
import { DetachedCluster, processesOf, tell, tracesOf } from '../../world/kube.ts'
import { ambit, eventually, run, uniqueName, type Ran } from '../../world/sandbox.ts'

const APPS = `
apiVersion: v1
kind: Namespace
metadata: { name: plain }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: plain }
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
metadata: { name: web, namespace: plain }
spec:
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: plain }
spec:
  nodeSelector: { kubernetes.io/hostname: node-1 }
  containers:
    - name: client
      image: ambit.local/busybox:1
      command: [sh, -c, 'trap "exit 0" TERM; echo waiting; while :; do sleep 1; done']
---
apiVersion: v1
kind: Pod
metadata: { name: host, namespace: plain }
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
const settings = (): string[] => SYSCTLS.map((file) => readFileSync(file, 'utf8'))
/** Read when the file is, before any cluster. */
const before = settings()

async function expectNoTraces({ name, id }: DetachedCluster): Promise<void> {
  expect(await tracesOf(name, id)).toEqual([])
  expect(existsSync(join(DISK_ROOT, name))).toBe(false)
}

export function cluster(of: () => DetachedCluster): void {
  describe('a Kubernetes sandbox', () => {
    let cluster: DetachedCluster
    const ask = (args: readonly string[], input?: string): Promise<Ran> => cluster.kubectl(args, input)
    const inClient = (command: string): Promise<Ran> =>
      ask(['-n', 'plain', 'exec', 'client', '--', 'sh', '-c', command])

    beforeAll(async () => {
      cluster = of()
      expect(cluster.said).toContain('export KUBECONFIG=')
      expect((await ask(['apply', '-f', '-'], APPS)).err).toBe('')
      const ready = await ask(['-n', 'plain', 'wait', '--for=condition=Ready', 'pod', '--all', '--timeout=90s'])
      expect(ready.code, ready.err).toBe(0)
    })

    it('spreads pods where they are asked to go, with addresses of their nodes', async () => {
      const { items } = JSON.parse((await ask(['-n', 'plain', 'get', 'pods', '-o', 'json'])).out) as {
        items: { metadata: { name: string }; spec: { nodeName: string }; status: { podIP: string } }[]
      }
      const places = Object.fromEntries(
        items.map((pod) => [pod.metadata.name.replace(/-.*/, ''), [pod.spec.nodeName, pod.status.podIP]]),
      )
      expect(places['client']).toEqual(['node-1', expect.stringMatching(/^10\.\d+\.1\.\d+$/)])
      expect(places['web']).toEqual(['node-2', expect.stringMatching(/^10\.\d+\.2\.\d+$/)])
      expect(places['host']).toEqual(['node-1', cluster.status.nodes[0]!.address])
    })

    it('lets a pod reach one of the other node through a Service, by short and by full name', async () => {
      for (const host of ['web', 'web.plain', 'web.plain.svc.cluster.local'])
        expect((await inClient(`wget -q -O - http://${host}/`)).out).toMatch(/^hello from web-/)
    })

    it('shows logs, runs commands with their exit code, forwards standard input', async () => {
      expect((await ask(['-n', 'plain', 'logs', 'deploy/web'])).out).toBe('serving\n')
      expect((await inClient('exit 7')).code).toBe(7)
      const echoed = await run([ambit, 'sandbox', 'exec', '--name', cluster.name, 'plain/client', '--', 'cat'], {
        input: 'abc',
      })
      expect(echoed).toMatchObject({ code: 0, out: 'abc' })
    })

    it('gives pods a token that the API server takes, with the rights of their account and no others', async () => {
      const token = (await inClient('cat /var/run/secrets/kubernetes.io/serviceaccount/token')).out
      const review = await ask(
        ['create', '-o', 'json', '-f', '-'],
        JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } }),
      )
      expect(JSON.parse(review.out)).toMatchObject({
        status: { authenticated: true, user: { username: 'system:serviceaccount:plain:default' } },
      })
      const denied = await ask(['auth', 'can-i', 'list', 'pods', '--as=system:serviceaccount:plain:default'])
      expect(denied.out.trim()).toBe('no')
    })

    it('keeps the nodes apart: processes, pins, cgroups and files of one are not on the other nor on the machine', async () => {
      const onHost = (command: string): Promise<Ran> => ask(['-n', 'plain', 'exec', 'host', '--', 'sh', '-c', command])
      const processes = (await onHost('ps -o args')).out
      expect(processes.match(/\/kubelet --config/g)).toHaveLength(1)
      expect(processes).toContain('while :; do sleep 1; done')
      expect(processes).not.toContain('httpd')
      expect((await onHost('touch /node/mark && echo made')).out).toBe('made\n')
      expect(await run(['ls', '/srv/made-by-a-pod'])).toMatchObject({ code: 2 })
      const cgroups = cluster.status.nodes.map((node) => readFileSync(`/proc/${node.pid}/cgroup`, 'utf8'))
      expect(cgroups[0]).toContain(`/ambit-${cluster.id}/node-1/system`)
      expect(cgroups[1]).toContain(`/ambit-${cluster.id}/node-2/system`)
    })

    it('starts a program again that was killed', async () => {
      const kubelet = cluster.status.programs.find((one) => one.name === 'kubelet-node-1')!
      process.kill(kubelet.pid!, 'SIGKILL')
      await eventually('the kubelet runs again', async () => {
        const now = await cluster.now()
        const again = now.programs.find((one) => one.name === 'kubelet-node-1')!
        return again.restarts === 1 && again.pid !== null && again.pid !== kubelet.pid
      })
      await eventually('and serves', async () => (await inClient('echo yes')).out === 'yes\n', 30_000)
    })

    it('comes up without a folder and an image too, and goes without a trace when it is asked to', async ({
      onTestFinished,
    }) => {
      const bare = await DetachedCluster.up(uniqueName(), '--no-image')
      onTestFinished(async () => void (await bare.down()))
      expect(await bare.down()).toMatchObject({ code: 0, err: '' })
      await expectNoTraces(bare)
    })

    it("leaves nothing behind, and the machine's settings as they were, even when its process was killed", async () => {
      const { name } = cluster
      expect(settings()).toEqual(before)
      tell(`disk of both nodes: ${(await run(['du', '-sm', join(DISK_ROOT, name)])).out.split('\t')[0]} MB`)
      expect(processesOf(name).length).toBeGreaterThan(10)
      process.kill(ownerOf(name)!, 'SIGKILL')
      expect(await cluster.down()).toMatchObject({ code: 0, err: '' })
      await expectNoTraces(cluster)
    })
  })
}
