// The writer of the kernel's tables as long as this agent leads: once a newer one has taken over, nothing more is written, also
// in the middle of an operation. Must not live here: the tables (tables.ts), the lease (lease.ts).
import type { Endpoint } from '../../io/connection.ts'
import type { AddressRow, PolicyTable, ServiceRow, TableWriter } from './contract.ts'
import type { Lease } from './lease.ts'

/** Rows between looks at the lease. */
const LOOK_EVERY = 256

export class LeasedTables implements TableWriter {
  readonly #tables: TableWriter
  readonly #lease: Lease
  readonly #onUdpRefused: (pods: readonly string[]) => Promise<void>

  /** `onUdpRefused`: pods whose table, now in force, refuses UDP to some port. */
  constructor(tables: TableWriter, lease: Lease, onUdpRefused: (pods: readonly string[]) => Promise<void>) {
    this.#tables = tables
    this.#lease = lease
    this.#onUdpRefused = onUdpRefused
  }

  setAddresses(rows: Iterable<AddressRow>): Promise<void> {
    return this.#tables.setAddresses(this.#whileLeading(rows))
  }

  deleteAddresses(addresses: Iterable<string>): Promise<void> {
    return this.#tables.deleteAddresses(this.#whileLeading(addresses))
  }

  setServices(rows: Iterable<ServiceRow>): Promise<void> {
    return this.#tables.setServices(this.#whileLeading(rows))
  }

  deleteServices(keys: Iterable<Endpoint>): Promise<void> {
    return this.#tables.deleteServices(this.#whileLeading(keys))
  }

  async replacePolicies(tables: Iterable<readonly [pod: string, table: PolicyTable | undefined]>): Promise<void> {
    const refusing: string[] = []
    const noting = function* (rows: typeof tables): typeof tables {
      for (const row of rows) {
        if (row[1] !== undefined && row[1].udpRefused.length > 0) refusing.push(row[0])
        yield row
      }
    }
    await this.#tables.replacePolicies(noting(this.#whileLeading(tables)))
    if (this.#lease.leads()) await this.#onUdpRefused(refusing)
  }

  setDirect(pod: string, direct: boolean): void {
    if (this.#lease.leads()) this.#tables.setDirect(pod, direct)
  }

  setSettings(settings: { readonly synced: boolean; readonly passUnknown: boolean }): void {
    if (this.#lease.leads()) this.#tables.setSettings(settings)
  }

  async sweep(): Promise<void> {
    if (this.#lease.leads()) await this.#tables.sweep()
  }

  sizes(): ReturnType<TableWriter['sizes']> {
    return this.#tables.sizes()
  }

  *#whileLeading<T>(rows: Iterable<T>): Generator<T> {
    let untilLook = 0
    for (const row of rows) {
      if (untilLook === 0) {
        if (!this.#lease.leads()) return
        untilLook = LOOK_EVERY
      }
      untilLook--
      yield row
    }
  }
}
