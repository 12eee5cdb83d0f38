// What the agent of a pod's node is told of it, and which pods are in the mesh.
import { describe, expect, it } from 'vitest'
import { loadText } from './folder.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

interface Given {
  readonly metadata?: object
  readonly labels?: object
  readonly annotations?: object
  readonly spec?: object
  readonly status?: object
  readonly namespace?: string
}

const pod = ({ metadata, labels = {}, annotations = {}, spec = {}, status = {}, namespace = 'shop' }: Given) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace, uid: 'u-1', labels, annotations, ...metadata },
  spec: { nodeName: 'n1', containers: [{ name: 'c' }], ...spec },
  status,
})
const namespaces = [
  ['shop', { 'istio.io/dataplane-mode': 'ambient' }],
  ['plain', {}],
  ['kube-system', { 'istio.io/dataplane-mode': 'ambient' }],
].map(([name, labels]) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }))
const gateway = {
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: { name: 'waypoint', namespace: 'shop' },
  spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
}

function podsOf(...documents: readonly object[]) {
  const text = [...namespaces, gateway, ...documents].map((one) => JSON.stringify(one)).join('\n---\n')
  return translate(resourcesOf(loadText(text, 'f.yaml')))
}
const enrolment = (given: Given) => podsOf(pod(given)).pods[0]?.enrolment

describe('a pod, for the agent of its node', () => {
  it('is told of from the moment it has a node, with what finds it there', () => {
    expect(podsOf(pod({ spec: { serviceAccountName: 'web' }, status: { phase: 'Pending' } })).pods).toEqual([
      {
        uid: 'u-1',
        kubeletUid: 'u-1',
        namespace: 'shop',
        name: 'web',
        node: 'n1',
        serviceAccount: 'web',
        addresses: [],
        containers: [],
        hostNetwork: false,
        stage: 'Pending',
        enrolment: 'enrolled',
      },
    ])
    const status = {
      phase: 'Running',
      podIPs: [{ ip: '10.0.0.1' }],
      containerStatuses: [{ containerID: 'containerd://bb' }, {}],
      initContainerStatuses: [{ containerID: 'containerd://aa' }],
    }
    expect(podsOf(pod({ status })).pods).toMatchObject([
      { stage: 'Running', addresses: ['10.0.0.1'], containers: ['aa', 'bb'] },
    ])
  })

  it('is called what the kubelet calls it, also when the API knows a mirror only', () => {
    const annotations = { 'kubernetes.io/config.hash': 'abc', 'kubernetes.io/config.mirror': 'abc' }
    expect(podsOf(pod({ annotations })).pods).toMatchObject([{ uid: 'u-1', kubeletUid: 'abc' }])
  })

  it('is not told of without a node, without a uid, or when it has ended', () => {
    expect(podsOf(pod({ spec: { nodeName: undefined } })).pods).toEqual([])
    expect(podsOf(pod({ metadata: { uid: undefined } })).pods).toEqual([])
    expect(podsOf(pod({ status: { phase: 'Succeeded' } })).pods).toEqual([])
  })
})

describe('a pod is in the mesh', () => {
  it('by the label of its namespace, unless its own says otherwise, under either prefix', () => {
    expect(enrolment({})).toBe('enrolled')
    expect(enrolment({ namespace: 'plain' })).toBe('not_enrolled')
    for (const prefix of ['ambit.io', 'istio.io']) {
      const label = `${prefix}/dataplane-mode`
      expect(enrolment({ labels: { [label]: 'none' } })).toBe('not_enrolled')
      expect(enrolment({ labels: { [label]: 'ambient' }, namespace: 'plain' })).toBe('enrolled')
    }
  })

  it('by its namespace when its own label makes no sense, which is said once', () => {
    const { pods, problems } = podsOf(
      pod({ labels: { 'istio.io/dataplane-mode': 'on' }, status: { podIPs: [{ ip: '10.0.0.1' }] } }),
    )
    expect(pods[0]?.enrolment).toBe('enrolled')
    expect(problems.filter(({ message }) => message.includes('"on"'))).toHaveLength(1)
  })

  it('never on the host network, with a sidecar, as a waypoint, or in an exempt namespace', () => {
    const labels = { 'istio.io/dataplane-mode': 'ambient' }
    expect(enrolment({ labels, spec: { hostNetwork: true } })).toBe('host_network')
    expect(enrolment({ labels, annotations: { 'sidecar.istio.io/status': '{}' } })).toBe('sidecar')
    expect(enrolment({ labels, namespace: 'kube-system' })).toBe('exempt')
    expect(enrolment({ labels: { ...labels, 'gateway.networking.k8s.io/gateway-name': 'waypoint' } })).toBe(
      'own_tunnel',
    )
    expect(enrolment({ labels: { ...labels, 'networking.istio.io/tunnel': 'http' } })).toBe('own_tunnel')
  })

  it('never in the namespaces that are exempt by name, and then in no others', () => {
    const given = (namespace: string, exemptNamespaces: readonly string[]) => {
      const labels = { 'istio.io/dataplane-mode': 'ambient' }
      const text = JSON.stringify(pod({ labels, namespace }))
      return translate({ ...resourcesOf(loadText(text, 'f.yaml')), exemptNamespaces }).pods[0]?.enrolment
    }
    expect(given('monitoring', ['monitoring'])).toBe('exempt')
    expect(given('kube-system', ['monitoring'])).toBe('enrolled')
    expect(given('ambit-system', [])).toBe('exempt')
  })

  it('also when it only wishes for a sidecar', () => {
    expect(enrolment({ annotations: { 'sidecar.istio.io/inject': 'true' } })).toBe('enrolled')
  })
})
