// What the tests of this room share: a Redirect that keeps books instead of a kernel (the kernel tests use the real one),
// a mesh to decide by, pods with a namespace file. Must not live here: expectations.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MeshState } from '../../mesh/state.ts'
import type { NodePod } from '../../mesh/pod.ts'
import { defaultSettings } from '../../mesh/settings.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { PodHandle, PodListeners, Redirect } from '../redirect/contract.ts'
import type { RegisteredPod } from './contract.ts'

/** Answers like the kernel half and remembers what it was asked. */
export class Books implements Redirect {
  readonly features = {}
  readonly inKernel = new Map<string, PodHandle>()
  readonly log: string[] = []
  /** The next so many enrolments fail. */
  failures = 0

  async enroll(pod: PodHandle): Promise<PodListeners> {
    this.log.push(`enroll ${pod.uid}`)
    if (this.failures > 0) {
      this.failures--
      throw new Error('the kernel said no')
    }
    this.inKernel.set(pod.uid, pod)
    return { outbound: 1001, hbone: 1002, plaintext: 1003 }
  }
  async unenroll(uid: string): Promise<void> {
    this.log.push(`unenroll ${uid}`)
    this.inKernel.delete(uid)
  }
  enrolled(): readonly string[] {
    return [...this.inKernel.keys()]
  }
  setPlaintext(): void {}
  originalDestination(): undefined {
    return undefined
  }
  socket(): number {
    return -1
  }
  counters(): Record<string, number> {
    return {}
  }
  close(): void {}
  async uninstall(): Promise<void> {
    this.inKernel.clear()
  }
}

/** A folder that goes with the test, and pods whose namespace is a file in it. */
export class Folder {
  readonly path = mkdtempSync(join(tmpdir(), 'ambit-enroll-'))

  pod(name: string, change: Partial<RegisteredPod> = {}): RegisteredPod {
    const netns = join(this.path, `${name}.netns`)
    writeFileSync(netns, '')
    const number = Buffer.from(name).reduce((sum, byte) => (sum * 31 + byte) % 60_000, 7)
    return {
      uid: `uid-${name}`,
      namespace: 'shop',
      name,
      netns,
      addresses: [`10.1.${number >> 8}.${number & 255}`],
      ...change,
    }
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** A mesh in which namespace `shop` is enrolled. */
export function shopMesh(): MeshState {
  const mesh = new MeshState()
  mesh.settings = { ...defaultSettings, enrolledNamespaces: ['shop'] }
  return mesh
}

/** What control tells of a pod. */
export function nodePodFor(pod: RegisteredPod, change: Partial<NodePod> = {}): NodePod {
  return {
    uid: pod.uid,
    kubeletUid: change.uid ?? pod.uid,
    namespace: pod.namespace,
    name: pod.name,
    node: 'one',
    serviceAccount: 'default',
    addresses: pod.addresses,
    containers: [],
    hostNetwork: false,
    stage: 'Running',
    enrolment: 'enrolled',
    ...change,
  }
}

/** The workload that is a pod. */
export function workloadFor(pod: RegisteredPod, change: Partial<Workload> = {}): Workload {
  return {
    uid: `cluster//Pod/${pod.namespace}/${pod.name}`,
    name: pod.name,
    namespace: pod.namespace,
    serviceAccount: 'default',
    trustDomain: 'cluster.local',
    addresses: pod.addresses,
    network: '',
    node: 'one',
    clusterId: 'cluster',
    tunnelProtocol: 'HBONE',
    nativeTunnel: false,
    hostNetwork: false,
    services: {},
    authorizationPolicies: [],
    healthy: true,
    canonicalName: pod.name,
    canonicalRevision: '',
    workloadType: 'pod',
    workloadName: pod.name,
    locality: { region: '', zone: '', subzone: '' },
    capacity: 1,
    sameNode: 'direct',
    labels: {},
    ...change,
  }
}
