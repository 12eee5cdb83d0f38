// NodePod ⇄ ambit.v1.Pod.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { nodePodKey, type Enrolment, type NodePod, type PodStage } from '../../mesh/pod.ts'
import { Pod_Enrolment, Pod_Stage, PodSchema } from '../gen/ambit/v1/pod_pb.js'
import type { Codec } from './codec.ts'
import { sharedText } from './intern.ts'
import { ipFromBytes, ipToBytes } from './ip.ts'
import { EnumTable, invalid } from './parts.ts'

const stages = new EnumTable<PodStage>('stage of a pod', {
  Pending: Pod_Stage.PENDING,
  Running: Pod_Stage.RUNNING,
  Unknown: Pod_Stage.UNKNOWN,
})
const enrolments = new EnumTable<Enrolment>('enrolment of a pod', {
  enrolled: Pod_Enrolment.ENROLLED,
  not_enrolled: Pod_Enrolment.NOT_ENROLLED,
  exempt: Pod_Enrolment.EXEMPT,
  host_network: Pod_Enrolment.HOST_NETWORK,
  sidecar: Pod_Enrolment.SIDECAR,
  own_tunnel: Pod_Enrolment.OWN_TUNNEL,
})

export const podCodec: Codec<NodePod> = {
  kind: 'Pod',
  nameOf: nodePodKey,
  encode: (pod) =>
    toBinary(
      PodSchema,
      create(PodSchema, {
        uid: pod.uid,
        kubeletUid: pod.kubeletUid === pod.uid ? '' : pod.kubeletUid,
        namespace: pod.namespace,
        name: pod.name,
        node: pod.node,
        serviceAccount: pod.serviceAccount,
        addresses: pod.addresses.map(ipToBytes),
        containers: [...pod.containers],
        hostNetwork: pod.hostNetwork,
        stage: stages.wire(pod.stage),
        enrolment: enrolments.wire(pod.enrolment),
      }),
    ),
  decode(bytes) {
    const wire = fromBinary(PodSchema, bytes)
    if (!wire.uid || !wire.namespace || !wire.name || !wire.node) throw invalid('a pod without uid, name or node')
    return {
      uid: wire.uid,
      kubeletUid: wire.kubeletUid || wire.uid,
      namespace: sharedText(wire.namespace),
      name: wire.name,
      node: sharedText(wire.node),
      serviceAccount: sharedText(wire.serviceAccount),
      addresses: wire.addresses.map(ipFromBytes),
      containers: wire.containers,
      hostNetwork: wire.hostNetwork,
      stage: stages.text(wire.stage),
      enrolment: enrolments.text(wire.enrolment),
    }
  },
}
