// A pod whose very first act is to dial out: never a byte in the clear, on a real cluster with a real runtime, many times. Must not
// live here: pods that run already (labels.ts).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Capture } from '../../../agent/sandbox/capture.ts'
import type { KubeMesh } from '../../world/kube-mesh.ts'
import { tell } from '../../world/kube.ts'

/** How many pods dial out as their first act. */
const PODS = 200
/** Of these at one time: a node takes 200 pods, some are there already, and those that ended go a little later. */
const AT_ONCE = 120
const PORT = 8080
/** A pod takes half a second of processor; the machine may have others to serve. */
const LIMIT_MS = 400_000

let mesh: KubeMesh
let server: string
const folder = mkdtempSync(join(tmpdir(), 'ambit-first-'))
async function prepare(): Promise<void> {
  const namespaces = [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'first', labels: { 'istio.io/dataplane-mode': 'ambient' } },
    },
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'apart' } },
  ]
  const web = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'first' },
    spec: {
      nodeSelector: { 'kubernetes.io/hostname': 'node-2' },
      containers: [
        {
          name: 'c',
          image: 'ambit.local/busybox:1',
          command: ['sh', '-c', `mkdir /tmp/www; echo hi >/tmp/www/index.html; exec httpd -f -p ${PORT} -h /tmp/www`],
          readinessProbe: { httpGet: { path: '/', port: PORT }, periodSeconds: 1 },
        },
      ],
    },
  }
  await mesh.apply(...namespaces, web)
  await mesh.kubectl('-n first wait --for=condition=Ready pod/web --timeout=60s')
  server = await mesh.kubectl('-n first get pod web -o jsonpath={.status.podIP}')
}

/** Runs so many pods that do nothing but fetch a page of `web`; how many had it. */
async function dial(namespace: string, mark: string, pods: number): Promise<number> {
  const job = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'first', namespace },
    spec: {
      completions: pods,
      parallelism: Math.min(pods, AT_ONCE),
      // Who fails counts, and is not tried again.
      backoffLimitPerIndex: 0,
      completionMode: 'Indexed',
      template: {
        spec: {
          restartPolicy: 'Never',
          nodeSelector: { 'kubernetes.io/hostname': 'node-1' },
          terminationGracePeriodSeconds: 0,
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          // Its first process is the static program itself: no shell, no name to look up.
          containers: [
            {
              name: 'c',
              image: 'ambit.local/busybox:1',
              command: ['wget', '-q', '-O', '/dev/null', `http://${server}:${PORT}/index.html?${mark}`],
            },
          ],
        },
      },
    },
  }
  await mesh.apply(job)
  interface Status {
    readonly status: { readonly succeeded?: number; readonly failed?: number }
  }
  const until = performance.now() + LIMIT_MS
  for (;;) {
    const { succeeded = 0, failed = 0 } = (await mesh.get<Status>(`job -n ${namespace} first`)).status
    if (succeeded + failed === pods) return succeeded
    if (performance.now() > until) throw new Error(`${succeeded} pods were answered, ${failed} not, and no more ended`)
    // Each question is a process, and this machine has enough to do.
    await new Promise((resolve) => setTimeout(resolve, 2_000))
  }
}

/** Segments to or from a port in a capture of Ethernet and IPv4: any at all, with bytes of an app or without. */
function segments(file: string, port: number): number {
  const bytes = readFileSync(file)
  let found = 0
  for (let at = 24; at + 16 <= bytes.length; at += 16 + bytes.readUInt32LE(at + 8)) {
    const packet = at + 16 + 14
    if (bytes.readUInt16BE(packet - 2) !== 0x0800 || bytes[packet + 9] !== 6) continue
    const tcp = packet + (bytes[packet]! & 15) * 4
    if (bytes.readUInt16BE(tcp) === port || bytes.readUInt16BE(tcp + 2) === port) found++
  }
  return found
}

export function firstByte(of: () => KubeMesh): void {
  describe('the first byte of a pod', () => {
    beforeAll(() => {
      mesh = of()
      return prepare()
    })
    afterAll(() => rmSync(folder, { recursive: true }))

    it('is seen by this test where the pod is not in the mesh', async () => {
      const capture = await Capture.start(folder, mesh.node('node-1').node, '-apart')
      expect(await dial('apart', 'apart-mark', 3)).toBe(3)
      await capture.stop()
      expect(capture.count('apart-mark')).toBe(3)
      expect(segments(capture.file, PORT)).toBeGreaterThan(3 * 5)
    }, 60_000)

    it(
      `never sends a byte in the clear, ${PODS} times, and is answered each time`,
      async () => {
        const capture = await Capture.start(folder, mesh.node('node-1').node, '-first')
        const began = performance.now()
        const succeeded = await dial('first', 'secret-mark', PODS)
        tell(`${PODS} pods in ${((performance.now() - began) / 1000).toFixed(0)} s`)
        await capture.stop()
        expect(capture.count('secret-mark')).toBe(0)
        expect(segments(capture.file, PORT)).toBe(0)
        // Each request and each answer is one at least.
        expect(capture.tlsRecords()).toBeGreaterThan(2 * PODS)
        expect(succeeded).toBe(PODS)
      },
      LIMIT_MS + 30_000,
    )
  })
}
