// What the tests of this room share: a writer that keeps the rows in maps instead of a kernel (the kernel tests use the real
// one), and refuses where a kernel would. Must not live here: expectations.
import { AmbitError } from '../../base/errors.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { AddressRow, PolicyRow, PolicyTable, ServiceRow, TableWriter } from '../redirect/contract.ts'

export class BookTables implements TableWriter {
  readonly addresses = new Map<string, AddressRow>()
  readonly services = new Map<string, ServiceRow>()
  readonly policies = new Map<string, PolicyTable>()
  readonly direct = new Map<string, boolean>()
  settings: { synced: boolean; passUnknown: boolean } = { synced: false, passUnknown: false }
  /** Which of the namespaces a pod has had is its own now, by uid: a kernel's tables name clients by that. */
  readonly namespaces = new Map<string, number>()
  /** What was asked, in order: the names of calls with how many rows. */
  readonly log: string[] = []
  /** The next so many writes find no room. */
  failures = 0
  /** Rows an earlier writer left. */
  readonly #old = new Set<string>()
  #busy = false

  /** As if an earlier writer had written it. */
  leave(row: AddressRow): void {
    this.addresses.set(row.address, row)
    this.#old.add(row.address)
  }

  async setAddresses(rows: Iterable<AddressRow>): Promise<void> {
    await this.#write('addresses', rows, (row) => {
      this.addresses.set(row.address, row)
      this.#old.delete(row.address)
    })
  }
  async deleteAddresses(addresses: Iterable<string>): Promise<void> {
    await this.#write('no addresses', addresses, (address) => this.addresses.delete(address))
  }
  async setServices(rows: Iterable<ServiceRow>): Promise<void> {
    await this.#write('services', rows, (row) => this.services.set(`${row.address} ${row.port}`, row))
  }
  async deleteServices(keys: Iterable<Endpoint>): Promise<void> {
    await this.#write('no services', keys, ({ address, port }) => this.services.delete(`${address} ${port}`))
  }
  async replacePolicies(tables: Iterable<readonly [string, PolicyTable | undefined]>): Promise<void> {
    await this.#write('policies', tables, ([uid, table]) => {
      if (table) this.policies.set(uid, { ...table, rows: table.rows.map((row) => this.#named(row)) })
      else this.policies.delete(uid)
    })
  }
  #named(row: PolicyRow): PolicyRow {
    const number = row.client === undefined ? undefined : this.namespaces.get(row.client)
    return number === undefined ? row : { ...row, client: `${row.client}#${number}` }
  }
  setDirect(pod: string, direct: boolean): void {
    this.log.push(`direct ${pod} ${direct}`)
    this.direct.set(pod, direct)
  }
  setSettings(settings: { synced: boolean; passUnknown: boolean }): void {
    this.log.push(`synced ${settings.synced} pass ${settings.passUnknown}`)
    this.settings = settings
  }
  async sweep(): Promise<void> {
    this.log.push('sweep')
    for (const address of this.#old) this.addresses.delete(address)
  }
  sizes() {
    const { addresses, services, policies } = this
    return { addresses: addresses.size, services: services.size, backends: 0, policies: policies.size }
  }

  async #write<T>(what: string, rows: Iterable<T>, put: (row: T) => void): Promise<void> {
    if (this.#busy) throw new Error('one operation at a time')
    this.#busy = true
    try {
      let count = 0
      for (const row of rows) {
        if (this.failures > 0) {
          this.failures--
          throw new AmbitError('REDIRECT_TABLE_FULL', 'A kernel table has no room.')
        }
        put(row)
        // A kernel takes them in batches, and changes come in between.
        if (++count % 3 === 0) await new Promise((resolve) => setImmediate(resolve))
      }
      if (count > 0) this.log.push(`${what} ${count}`)
    } finally {
      this.#busy = false
    }
  }
}
