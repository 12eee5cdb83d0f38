// The image on the nodes of a Kubernetes sandbox: there without a registry, as are the applications that manifests name; it runs
// without root and without writing to its own files; the shop's manifests run as they are.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { DetachedCluster } from '../../world/kube.ts'
import { eventually, root, type Ran } from '../../world/sandbox.ts'

const FOLDER = `
apiVersion: v1
kind: Namespace
metadata: { name: own }
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: talker, namespace: own }
spec:
  selector: { matchLabels: { app: talker } }
  template:
    metadata: { labels: { app: talker } }
    spec:
      containers:
        - name: talker
          image: team/talker:v7
          ports: [{ containerPort: 9090, name: http }]
          readinessProbe: { httpGet: { path: /, port: 9090 }, periodSeconds: 1 }
        - name: sleeper
          image: sleeper
          imagePullPolicy: IfNotPresent
`

/** Control as the chart runs it, with more rights than it needs and all that the image has to do without. */
const CONTROL = `
apiVersion: v1
kind: Namespace
metadata: { name: ambit-system }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ambit-control, namespace: ambit-system }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: ambit-control-of-a-test }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects: [{ kind: ServiceAccount, name: ambit-control, namespace: ambit-system }]
---
apiVersion: v1
kind: Pod
metadata: { name: control, namespace: ambit-system }
spec:
  serviceAccountName: ambit-control
  containers:
    - name: control
      image: IMAGE
      args: [control, --kube, --metrics, '[::]:15020', --listen, '0.0.0.0:15012']
      securityContext:
        runAsNonRoot: true
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: { drop: [ALL] }
        seccompProfile: { type: RuntimeDefault }
      readinessProbe: { httpGet: { path: /healthz/ready, port: 15020 }, periodSeconds: 1 }
`

/** What the cluster is to be brought up with. */
export function writeManifests(folder: string): void {
  writeFileSync(join(folder, 'talker.yaml'), FOLDER)
  writeFileSync(join(folder, 'images.yaml'), 'sleeper: exec sleep infinity\n')
}

export function image(of: () => { readonly cluster: DetachedCluster; readonly image: string }): void {
  describe('the image in a Kubernetes sandbox', () => {
    let cluster: DetachedCluster
    let image: string
    const ask = (args: readonly string[], input?: string): Promise<Ran> => cluster.kubectl(args, input)
    beforeAll(() => {
      ;({ cluster, image } = of())
    })

    it('is told of with its size, and is small', () => {
      const [, bytes, compressed] =
        new RegExp(`image ${image}: (\\d+) MB, compressed (\\d+) MB`).exec(cluster.said) ?? []
      expect(Number(bytes)).toBeLessThan(240)
      expect(Number(compressed)).toBeLessThan(64)
      expect(cluster.said).toContain('docker.io/library/my-service:v2')
      expect(cluster.said).not.toContain('not all of')
    })

    it('runs the folder on both nodes, its images made of the echo app or of what images.yaml says', async () => {
      const rolled = await ask(['-n', 'own', 'rollout', 'status', 'daemonset/talker', '--timeout=60s'])
      expect(rolled.code, rolled.err).toBe(0)
      const inTalker = (...command: string[]): Promise<Ran> =>
        ask(['-n', 'own', 'exec', 'daemonset/talker', '-c', 'talker', '--', ...command])
      const answer = await inTalker('curl', '-s', 'http://localhost:9090/hello')
      expect(JSON.parse(answer.out)).toMatchObject({ name: 'talker', version: 'v7', path: '/hello' })
      expect(
        (await ask(['-n', 'own', 'exec', 'daemonset/talker', '-c', 'sleeper', '--', 'cat', '/proc/1/cmdline'])).out,
      ).toBe('sleep\0infinity\0')
      const { items } = JSON.parse((await ask(['-n', 'own', 'get', 'pods', '-o', 'json'])).out) as {
        items: { spec: { nodeName: string } }[]
      }
      expect(items.map((pod) => pod.spec.nodeName).sort()).toEqual(['node-1', 'node-2'])
    })

    it("runs the shop's own manifests, as they are", async () => {
      expect((await ask(['apply', '-f', join(root, 'deploy/chart/crds')])).err).toBe('')
      const applied = await ask(['apply', '-f', join(root, 'deploy/examples/shop')])
      expect(applied, applied.err).toMatchObject({ code: 0, err: '' })
      for (const namespace of ['shop', 'outside']) {
        const ready = await ask([
          '-n',
          namespace,
          'wait',
          '--for=condition=Available',
          'deployment',
          '--all',
          '--timeout=60s',
        ])
        expect(ready.code, ready.err).toBe(0)
      }
      const call = [
        '-n',
        'shop',
        'exec',
        'deploy/frontend-deployment',
        '--',
        'curl',
        '-s',
        'http://my-service/api/items',
      ]
      await eventually('both versions answer', async () => {
        const versions = new Set<string>()
        for (let n = 0; n < 10; n++) versions.add((JSON.parse((await ask(call)).out) as { version: string }).version)
        return versions.size === 2
      })
    })

    it('runs control as nobody in particular, without rights and with its own files read-only', async () => {
      expect((await ask(['apply', '-f', '-'], CONTROL.replace('IMAGE', image))).err).toBe('')
      const ready = await ask(['-n', 'ambit-system', 'wait', '--for=condition=Ready', 'pod/control', '--timeout=60s'])
      expect(ready.code, (await ask(['-n', 'ambit-system', 'logs', 'control'])).out).toBe(0)
      const inControl = (...command: string[]): Promise<Ran> =>
        ask(['-n', 'ambit-system', 'exec', 'control', '--', ...command])
      expect((await inControl('id', '-u')).out).toBe('65532\n')
      expect((await inControl('grep', 'CapBnd', '/proc/1/status')).out).toBe('CapBnd:\t0000000000000000\n')
      // The commands of the image are in the path, for whoever runs one in a pod.
      expect((await inControl('ambit', 'waypoint', '--help')).out).toContain('ambit waypoint')
    })
  })
}
