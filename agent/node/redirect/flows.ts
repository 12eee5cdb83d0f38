// The kernel's flow log in the agent's terms. Must not live here: who the ends are, lines (../observe/kernel-flows.ts).
import { getSystemErrorName } from 'node:util'
import type { RingListener, RingMap } from '../../../native/bpf/index.ts'
import { FlowEvent } from '../../../native/bpf/gen/sockops.ts'
import { formatIp } from '../../base/ip.ts'
import type { KernelFlow } from './contract.ts'
import { refusals, securities } from './edges.ts'

/** Delivers flows to `listener` until the result is closed. Does not keep the process alive. */
export function listenToFlows(
  ring: RingMap,
  podOf: (cookie: bigint) => string | undefined,
  listener: (flows: readonly KernelFlow[]) => void,
): RingListener {
  // A turn's share is what an access log takes in a millisecond or two.
  const options = { maxRecords: 256 }
  return ring.listen(FlowEvent, (events) => listener(events.map((event) => flowOf(event, podOf))), options).unref()
}

function flowOf(event: FlowEvent, podOf: (cookie: bigint) => string | undefined): KernelFlow {
  return {
    pod: podOf(event.cookie),
    security: securities[event.security] ?? 'none',
    source: { address: formatIp(event.source.bytes), port: event.source_port },
    destination: { address: formatIp(event.destination.bytes), port: event.destination_port },
    dialled: { address: formatIp(event.dialled.bytes), port: event.dialled_port },
    durationMs: Number(event.duration_ns) / 1e6,
    sent: Number(event.sent),
    received: Number(event.received),
    retransmits: event.retransmits,
    failed: event.failed !== 0,
    error: event.error === 0 ? '' : getSystemErrorName(-event.error),
    refusal: refusals[event.refusal],
  }
}
