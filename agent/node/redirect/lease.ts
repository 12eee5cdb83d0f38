// Which agent of the node is the one that changes the kernel's tables: the newest. While two overlap, the older one goes on
// carrying connections and changes nothing. Must not live here: what is changed.
import { codec, createMap, openPinnedMap, BpfError, type BpfMap } from '../../../native/bpf/index.ts'

/**
 * A pinned table with one number: the start of the newest agent, on the clock that counts from the boot. It lies beside the
 * folders of the schemas, so that agents of different schemas share it.
 */
export class Lease {
  readonly #map: BpfMap<number, bigint>
  readonly #token: bigint

  private constructor(map: BpfMap<number, bigint>, token: bigint) {
    this.#map = map
    this.#token = token
  }

  /** Takes the lease from whoever has it. `root` is the node's folder on the bpffs. Throws BpfError. */
  static take(root: string): Lease {
    const map = openOrMake(`${root}/lease`)
    // Later than all before: whoever starts last leads.
    const token = process.hrtime.bigint()
    map.set(0, token)
    return new Lease(map, token)
  }

  /** When this agent took it, in seconds since the boot. */
  get since(): number {
    return Number(this.#token / 1_000_000_000n)
  }

  /** False once a newer agent has taken it, or everything was uninstalled. One system call. */
  leads(): boolean {
    return this.#map.get(0) === this.#token
  }

  close(): void {
    this.#map.close()
  }
}

function openOrMake(path: string): BpfMap<number, bigint> {
  try {
    return openPinnedMap(path, codec.u32, codec.u64)
  } catch (error) {
    if (!(error instanceof BpfError && error.code === 'ENOENT')) throw error
  }
  const map = createMap('array', { name: 'ambit_lease', key: codec.u32, value: codec.u64, maxEntries: 1 })
  try {
    map.pin(path)
    return map
  } catch (error) {
    map.close()
    // Another agent started at the same moment.
    if (error instanceof BpfError && error.code === 'EEXIST') return openPinnedMap(path, codec.u32, codec.u64)
    throw error
  }
}
