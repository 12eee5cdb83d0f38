// The kernel's tables of the mesh: rows in words of addresses and uids become entries of bpf/lib/{workloads,services,policies}.h,
// in an order in which nothing half-written is ever believed. Must not live here: what the rows say (../tables).
import { BpfError } from '../../../native/bpf/index.ts'
import type { BackendKey } from '../../../native/bpf/gen/connect.ts'
import { AmbitError } from '../../base/errors.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { AddressRow, PolicyTable, ServiceRow, TableWriter } from './contract.ts'
import { kernelAddress } from './notes.ts'
import type { NodePrograms } from './programs.ts'

/** enum workload_class */
const classes = { agent: 0, direct: 1, plain: 2 } as const
/** enum service_kind */
const serviceKinds = { agent: 0, balanced: 1 } as const
/** enum policy_verdict */
const verdicts = { allow: 1, deny: 2, by_port: 3, by_client: 4 } as const
/** PORT_HEAD, PORT_OTHER */
const PORT_HEAD = 0
const PORT_OTHER = 15_008
const TCP = 6
const UDP = 17
/** enum settings_flag */
const settingsFlags = { synced: 1, passUnknown: 2 } as const
/** enum pod_flag */
const POD_DIRECT = 1
/** Fewer rows take less time than handing them to a worker thread. */
const SMALL = 64
/** Services whose slots are in the kernel twice at a time. */
const SERVICES_AT_ONCE = 64

type Maps = NodePrograms['maps']
type ServiceKey = BackendKey['service']

export class Tables implements TableWriter {
  readonly #maps: Maps
  /** Cookie of a pod enrolled here. */
  readonly #cookieOf: (uid: string) => bigint | undefined
  /** Of what this writer writes. Zero until the first row, when a number is taken that nothing in the kernel has. */
  #generation = 0
  /** Nobody has written before. */
  #first = false

  constructor(maps: Maps, cookieOf: (uid: string) => bigint | undefined) {
    this.#maps = maps
    this.#cookieOf = cookieOf
  }

  async setAddresses(rows: Iterable<AddressRow>): Promise<void> {
    await this.#begin()
    await write(this.#maps.ambit_workloads, this.#addressEntries(rows))
  }

  async deleteAddresses(addresses: Iterable<string>): Promise<void> {
    this.#maps.ambit_workloads.deleteMany([...addresses].map(kernelAddress))
  }

  async setServices(rows: Iterable<ServiceRow>): Promise<void> {
    await this.#begin()
    for (const some of portions(rows, SERVICES_AT_ONCE)) await this.#replaceServices(some)
  }

  async deleteServices(keys: Iterable<Endpoint>): Promise<void> {
    this.#dropServices([...keys].map(serviceKey))
  }

  async replacePolicies(tables: Iterable<readonly [pod: string, table: PolicyTable | undefined]>): Promise<void> {
    await full(this.#maps.ambit_policies.replaceMany(this.#policyTables(tables)))
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

  async sweep(): Promise<void> {
    await this.#begin()
    if (this.#first) return
    const { ambit_workloads, ambit_services, ambit_backends } = this.#maps
    const stale: { bytes: Uint8Array }[] = []
    for await (const list of calmly(ambit_workloads.batches())) {
      for (const [address, { generation }] of list) if (generation !== this.#generation) stale.push(address)
    }
    ambit_workloads.deleteMany(stale)
    const services: ServiceKey[] = []
    const versions = new Map<string, number>()
    for await (const list of calmly(ambit_services.batches())) {
      for (const [key, { generation, version }] of list) {
        if (generation === this.#generation) versions.set(keyText(key), version)
        else services.push(key)
      }
    }
    this.#dropServices(services)
    // Slots of no list: of a writer that died between writing them and naming them.
    const slots: BackendKey[] = []
    for await (const list of calmly(ambit_backends.batches())) {
      for (const [key] of list) if (versions.get(keyText(key.service)) !== key.version) slots.push(key)
    }
    ambit_backends.deleteMany(slots)
  }

  sizes(): Readonly<Record<'addresses' | 'services' | 'backends' | 'policies', number>> {
    const { ambit_workloads, ambit_services, ambit_backends, ambit_policies } = this.#maps
    const count = (map: { keys(): Iterable<unknown> }): number => {
      let entries = 0
      for (const _ of map.keys()) entries++
      return entries
    }
    return {
      addresses: count(ambit_workloads),
      services: count(ambit_services),
      backends: count(ambit_backends),
      policies: count(ambit_policies),
    }
  }

  async #replaceServices(rows: readonly ServiceRow[]): Promise<void> {
    const { ambit_services, ambit_backends } = this.#maps
    const changes = rows.map((row) => {
      const key = serviceKey(row)
      const before = ambit_services.get(key)
      const value = {
        version: ((before?.version ?? 0) + 1) >>> 0,
        count: row.backends.length,
        affinity_seconds: row.affinitySeconds,
        generation: this.#generation,
        kind: serviceKinds[row.kind],
      }
      return { key, before, backends: row.backends, value }
    })
    // The slots of the new version, then the entries that name them, then the old slots go.
    await write(
      ambit_backends,
      changes.flatMap(({ key, value, backends }) => slotsOf(key, value.version, backends)),
    )
    await write(
      ambit_services,
      changes.map(({ key, value }) => [key, value] as const),
    )
    ambit_backends.deleteMany(changes.flatMap(({ key, before }) => (before ? slotKeys(key, before) : [])))
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

  async #begin(): Promise<void> {
    if (this.#generation !== 0) return
    const { ambit_workloads, ambit_services, ambit_backends } = this.#maps
    const used = new Set<number>()
    for await (const list of calmly(ambit_workloads.batches())) {
      for (const [, { generation }] of list) used.add(generation)
    }
    for await (const list of calmly(ambit_services.batches())) {
      for (const [, { generation }] of list) used.add(generation)
    }
    this.#first = used.size === 0 && ambit_backends.keys().next().done === true
    do this.#generation++
    while (used.has(this.#generation))
  }

  *#addressEntries(rows: Iterable<AddressRow>) {
    for (const row of rows) {
      const cookie = row.class === 'direct' ? this.#cookieOf(row.pod) : undefined
      const kind = row.class === 'direct' && cookie === undefined ? 'agent' : row.class
      const value = { cookie: cookie ?? 0n, generation: this.#generation, class: classes[kind] }
      yield [kernelAddress(row.address), value] as const
    }
  }

  *#policyTables(tables: Iterable<readonly [pod: string, table: PolicyTable | undefined]>) {
    for (const [uid, table] of tables) {
      const cookie = this.#cookieOf(uid)
      if (cookie !== undefined) yield [cookie, table && this.#policyEntries(table)] as const
    }
  }

  *#policyEntries({ head, rows, udpRefused }: PolicyTable) {
    const entry = (client: bigint, port: number, protocol: number, verdict: keyof typeof verdicts) =>
      [{ client, port, protocol }, { verdict: verdicts[verdict] }] as const
    if (head !== 'agent') yield entry(0n, PORT_HEAD, TCP, head)
    for (const { client, port, verdict } of rows) {
      const cookie = client === undefined ? 0n : this.#cookieOf(client)
      // Nobody there to be judged.
      if (cookie !== undefined) yield entry(cookie, port ?? PORT_OTHER, TCP, verdict)
    }
    for (const port of udpRefused) yield entry(0n, port, UDP, 'deny')
  }
}

interface Writable<K, V> {
  setMany(entries: Iterable<readonly [K, V]>): number
  setManyAsync(entries: Iterable<readonly [K, V]>): Promise<number>
}

/** On a worker thread, but for a handful. Throws REDIRECT_TABLE_FULL. */
async function write<K, V>(map: Writable<K, V>, entries: Iterable<readonly [K, V]>): Promise<void> {
  const iterator = entries[Symbol.iterator]()
  const first: (readonly [K, V])[] = []
  while (first.length < SMALL) {
    const { done, value } = iterator.next()
    if (done === true) return void (await full(Promise.resolve().then(() => map.setMany(first))))
    first.push(value)
  }
  const rest = { [Symbol.iterator]: () => iterator }
  await full(map.setManyAsync(chain(first, rest)))
}

function* chain<T>(first: Iterable<T>, rest: Iterable<T>): Generator<T> {
  yield* first
  yield* rest
}

async function full<T>(task: Promise<T>): Promise<T> {
  try {
    return await task
  } catch (error) {
    if (!(error instanceof BpfError && error.code === 'E2BIG')) throw error
    throw new AmbitError('REDIRECT_TABLE_FULL', `A kernel table has no room: ${error.message}`, {
      hint: 'What has no row goes through the agent. The bounds are stated in bpf/lib.',
      cause: error,
    })
  }
}

function* portions<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let portion: T[] = []
  for (const item of items) {
    portion.push(item)
    if (portion.length < size) continue
    yield portion
    portion = []
  }
  if (portion.length > 0) yield portion
}

/** Lets the event loop go on between batches. */
async function* calmly<T>(lists: Iterable<T>): AsyncGenerator<T> {
  for (const list of lists) {
    yield list
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function serviceKey({ address, port }: { readonly address: string; readonly port: number }): ServiceKey {
  return { address: kernelAddress(address), port }
}

function keyText({ address, port }: ServiceKey): string {
  return `${Buffer.from(address.bytes).toString('latin1')}${port}`
}

function slotsOf(service: ServiceKey, version: number, backends: readonly Endpoint[]) {
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
