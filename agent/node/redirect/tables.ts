// The kernel's tables of the mesh: rows in words of addresses and uids become entries of bpf/lib/{workloads,services,policies}.h,
// in an order in which nothing half-written is ever believed. Must not live here: what the rows say (../tables).
import type { AffinityKey } from '../../../native/bpf/gen/connect.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { KernelTables, PolicyRow, ServiceRow, WorkloadRow } from './contract.ts'
import { kernelAddress } from './notes.ts'
import type { NodePrograms } from './programs.ts'

/** enum workload_class */
const classes = { agent: 0, direct: 1, plain: 2 } as const
/** enum service_kind */
const serviceKinds = { agent: 0, balanced: 1 } as const
/** enum policy_verdict */
const verdicts = { allow: 1, deny: 2, by_port: 3, by_client: 4 } as const
/** PORT_HEAD, PORT_OTHER */
const ports = { head: 0, other: 15_008 } as const
const protocols = { tcp: 6, udp: 17 } as const
/** enum settings_flag */
const settingsFlags = { synced: 1, passUnknown: 2 } as const
/** enum pod_flag */
const POD_DIRECT = 1
/** Rows beyond this many are written on a worker thread: fewer take less time than handing them over. */
const SMALL = 64

type Maps = NodePrograms['maps']
type ServiceKey = AffinityKey['service']

export class Tables implements KernelTables {
  readonly #maps: Maps
  /** Cookie of a pod enrolled here. */
  readonly #cookieOf: (uid: string) => bigint | undefined
  #generation = 0

  constructor(maps: Maps, cookieOf: (uid: string) => bigint | undefined) {
    this.#maps = maps
    this.#cookieOf = cookieOf
  }

  async setWorkloads(rows: readonly WorkloadRow[]): Promise<void> {
    await write(this.#maps.ambit_workloads, rows.length, this.#workloadEntries(rows))
  }

  async deleteWorkloads(addresses: readonly string[]): Promise<void> {
    this.#maps.ambit_workloads.deleteMany(addresses.map(kernelAddress))
  }

  async setServices(rows: readonly ServiceRow[]): Promise<void> {
    const { ambit_services, ambit_backends } = this.#maps
    const changes = rows.map((row) => {
      const key = serviceKey(row)
      const before = ambit_services.get(key)
      const backends = row.backends === 'agent' ? [] : row.backends
      const value = {
        version: ((before?.version ?? 0) + 1) >>> 0,
        count: backends.length,
        affinity_seconds: row.affinitySeconds,
        generation: this.#generation,
        kind: row.backends === 'agent' ? serviceKinds.agent : serviceKinds.balanced,
      }
      return { key, before, backends, value }
    })
    // The slots of the new version, then the entries that name them, then the old slots.
    await write(
      ambit_backends,
      changes.reduce((sum, { backends }) => sum + backends.length, 0),
      changes.flatMap(({ key, value, backends }) => slots(key, value.version, backends)),
    )
    await write(
      ambit_services,
      changes.length,
      changes.map(({ key, value }) => [key, value] as const),
    )
    ambit_backends.deleteMany(changes.flatMap(({ key, before }) => (before ? slotKeys(key, before) : [])))
  }

  async deleteServices(keys: readonly { readonly address: string; readonly port: number }[]): Promise<void> {
    this.#dropServices(keys.map(serviceKey))
  }

  async replacePolicies(tables: ReadonlyMap<string, readonly PolicyRow[]>): Promise<void> {
    for (const [uid, rows] of tables) {
      const cookie = this.#cookieOf(uid)
      if (cookie !== undefined) await this.#maps.ambit_policies.replace(cookie, this.#policyEntries(rows))
    }
  }

  setDirect(uid: string, direct: boolean): void {
    const cookie = this.#cookieOf(uid)
    const pod = cookie === undefined ? undefined : this.#maps.ambit_pods.get(cookie)
    if (cookie === undefined || !pod) return
    const flags = direct ? pod.flags | POD_DIRECT : pod.flags & ~POD_DIRECT
    if (flags !== pod.flags) this.#maps.ambit_pods.set(cookie, { ...pod, flags })
  }

  setSettings(settings: { readonly synced: boolean; readonly passUnknown: boolean }): void {
    const flags = (settings.synced ? settingsFlags.synced : 0) | (settings.passUnknown ? settingsFlags.passUnknown : 0)
    this.#maps.ambit_settings.set(0, { flags })
  }

  begin(): void {
    // What an earlier agent left is of some other generation: any number but those that are there will do.
    const used = new Set<number>()
    for (const list of this.#maps.ambit_workloads.batches()) for (const [, { generation }] of list) used.add(generation)
    for (const list of this.#maps.ambit_services.batches()) for (const [, { generation }] of list) used.add(generation)
    do this.#generation = (this.#generation + 1) >>> 0
    while (used.has(this.#generation))
  }

  async sweep(): Promise<void> {
    const { ambit_workloads, ambit_services } = this.#maps
    const stale: { bytes: Uint8Array }[] = []
    for (const list of ambit_workloads.batches()) {
      for (const [address, { generation }] of list) if (generation !== this.#generation) stale.push(address)
    }
    ambit_workloads.deleteMany(stale)
    const services: ServiceKey[] = []
    for (const list of ambit_services.batches()) {
      for (const [key, { generation }] of list) if (generation !== this.#generation) services.push(key)
    }
    this.#dropServices(services)
  }

  *#workloadEntries(rows: readonly WorkloadRow[]) {
    for (const row of rows) {
      const cookie = row.class === 'direct' && row.uid !== undefined ? this.#cookieOf(row.uid) : undefined
      // A pod that left meanwhile is the agent's to reach.
      const kind = row.class === 'direct' && cookie === undefined ? 'agent' : row.class
      const value = { cookie: cookie ?? 0n, generation: this.#generation, class: classes[kind] }
      yield [kernelAddress(row.address), value] as const
    }
  }

  *#policyEntries(rows: readonly PolicyRow[]) {
    for (const { client, port, protocol, verdict } of rows) {
      const cookie = client === undefined ? 0n : this.#cookieOf(client)
      // Nobody there to be judged.
      if (cookie === undefined) continue
      const number = typeof port === 'number' ? port : ports[port]
      yield [{ client: cookie, port: number, protocol: protocols[protocol] }, { verdict: verdicts[verdict] }] as const
    }
  }

  #dropServices(keys: readonly ServiceKey[]): void {
    const { ambit_services, ambit_backends } = this.#maps
    const old = keys.flatMap((key) => {
      const before = ambit_services.get(key)
      return before ? slotKeys(key, before) : []
    })
    ambit_services.deleteMany(keys)
    ambit_backends.deleteMany(old)
  }
}

interface Writable<K, V> {
  setMany(entries: Iterable<readonly [K, V]>): number
  setManyAsync(entries: Iterable<readonly [K, V]>): Promise<number>
}

async function write<K, V>(map: Writable<K, V>, count: number, entries: Iterable<readonly [K, V]>): Promise<void> {
  if (count <= SMALL) map.setMany(entries)
  else await map.setManyAsync(entries)
}

function serviceKey({ address, port }: { readonly address: string; readonly port: number }): ServiceKey {
  return { address: kernelAddress(address), port }
}

function slots(service: ServiceKey, version: number, backends: readonly Endpoint[]) {
  return backends.map(
    ({ address, port }, index) =>
      [
        { service, version, index },
        { address: kernelAddress(address), port },
      ] as const,
  )
}

function slotKeys(service: ServiceKey, { version, count }: { version: number; count: number }) {
  return Array.from({ length: count }, (_, index) => ({ service, version, index }))
}
