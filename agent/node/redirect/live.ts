// The walk over connections that run now, by whichever iterator this kernel lends. Must not live here: what is made of the
// records (edges.ts).
import { hasFeature, openObject, type BpfModule } from '../../../native/bpf/index.ts'
import { liveSchema } from '../../../native/bpf/gen/live.ts'

export type LiveModule = BpfModule<typeof liveSchema>

export interface LiveObject {
  /** Loads the one program that is used. */
  load(pinRoot: string): Promise<LiveModule>
  /**
   * Records of struct live, in no order; undefined where the kernel lends no iterator. Holds the thread. Where it goes over files,
   * they are those of this process's PID namespace: the agent has the node's (hostPID).
   */
  readonly walk: ((module: LiveModule) => Uint8Array) | undefined
}

/** `sampleEveryNs`: how often a connection's round-trip time is counted while it lives; default 10 s. */
export function liveObject(sampleEveryNs?: bigint): LiveObject {
  const object = openObject(new URL('../../../bpf/build/live.bpf.o', import.meta.url).pathname, liveSchema)
  if (sampleEveryNs !== undefined) object.rodata.sample_every_ns = sampleEveryNs
  const notes = hasFeature('iterator:bpf_sk_storage_map')
  const files = !notes && hasFeature('iterator:task_file')
  object.programs.ambit_live.autoload = notes
  object.programs.ambit_live_files.autoload = files
  return {
    load: (pinRoot) => object.load({ pinRoot }),
    walk: notes
      ? ({ programs, maps }) => programs.ambit_live.iterate({ map: maps.ambit_notes })
      : files
        ? ({ programs }) => programs.ambit_live_files.iterate()
        : undefined,
  }
}
