// Drives the native transport hard in one process, both ends in the same engine, and prints one JSON line about what it saw. Run by
// the tests beside it, under builds of the addon that make system calls fail or watch its memory. By seed, so that what failed can be run
// again. Must not live here: judging the line.
//   node test/native/torture.ts --seed 1 --exchanges 200 [--faults] [--threads 2]
import { createHash, type Hash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { Connection, ConnectionHandler, KeyPair, TlsSettings } from '../../agent/io/index.ts'
import { transport } from '../../agent/io/index.ts'
import { testRoot } from '../../agent/io/testcerts.ts'
import { CALLS, nativeIo } from '../../native/io/index.ts'

export interface Report {
  readonly exchanges: number
  /** Both directions carried whole, both ends closed cleanly. */
  readonly clean: number
  /** Cut, by us or by an injected fault. */
  readonly cut: number
  readonly injected: number
  /** Anything that must not be; empty is what a test wants. */
  readonly wrong: readonly string[]
  /** What the addon still holds when all is closed. */
  readonly left: { readonly connections: number; readonly chunks: number; readonly tls: number }
}

interface Setup {
  readonly seed: number
  readonly exchanges: number
  readonly faults: boolean
  readonly alone: boolean
  readonly root: string
  readonly client: KeyPair
  readonly server: KeyPair
}

/** A stuck exchange is given up after this long and reported. */
const STUCK_MS = 15_000

/** xorshift32: the same run for the same seed. */
class Chance {
  #state: number
  constructor(seed: number) {
    this.#state = seed | 1
  }
  below(n: number): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return this.#state % n
  }
  once(inN: number): boolean {
    return this.below(inN) === 0
  }
}

const MATERIAL = Buffer.alloc(1 << 20)
for (let i = 0; i < MATERIAL.length; i++) MATERIAL[i] = (i * 7 + (i >> 8)) & 0xff

/** One end: sends `length` bytes in pieces as it is let, checks what it gets, may pause, may cut. */
class End implements ConnectionHandler {
  readonly name: string
  readonly chance: Chance
  readonly length: number
  readonly cutAt: number
  other!: End
  sent = 0
  received = 0
  opens = 0
  ends = 0
  closes = 0
  error: Error | undefined
  connection: Connection | undefined
  readonly sentHash: Hash = createHash('sha1')
  readonly receivedHash: Hash = createHash('sha1')
  readonly done: () => void

  constructor(name: string, chance: Chance, done: () => void) {
    this.name = name
    this.chance = chance
    this.done = done
    this.length = chance.once(12) ? chance.below(3 << 20) : chance.below(200_000)
    this.cutAt = chance.once(6) ? chance.below(this.length + 1) : -1
  }

  onOpen(connection: Connection): void {
    this.opens++
    this.connection = connection
    this.#send()
  }

  #send(): void {
    const { connection, chance } = this
    if (!connection?.writable) return
    while (this.sent < this.length && connection.pending < 262_144) {
      const take = Math.min(this.length - this.sent, 1 + chance.below(chance.once(4) ? 200_000 : 5_000))
      const from = chance.below(MATERIAL.length - take)
      connection.write(MATERIAL, from, from + take)
      this.sentHash.update(MATERIAL.subarray(from, from + take))
      this.sent += take
      if (this.cutAt >= 0 && this.sent >= this.cutAt) return connection.abort('cancel')
      if (chance.once(3)) {
        setImmediate(() => this.#send())
        return
      }
    }
    if (this.sent >= this.length) connection.end()
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    this.received += end - start
    this.receivedHash.update(arena.subarray(start, end))
    if (!this.chance.once(8)) return
    connection.pause()
    setTimeout(() => connection.resume(), this.chance.below(3))
  }

  onDrain(): void {
    this.#send()
  }

  onEnd(): void {
    this.ends++
  }

  onClose(_connection: Connection, error: Error | undefined): void {
    this.closes++
    this.error = error
    this.done()
  }
}

function problems(number: number, kind: string, end: End): string[] {
  const where = `exchange ${number} (${kind}), ${end.name}: `
  const found: string[] = []
  if (end.closes !== 1) found.push(`${where}onClose came ${end.closes} times`)
  if (end.opens > 1 || end.ends > 1) found.push(`${where}onOpen ${end.opens}, onEnd ${end.ends} times`)
  if (end.ends === 1) {
    // A unix socket has no reset: what was cut there can look like an end (the contract's tests say so too).
    if (end.received !== end.other.length && kind !== 'unix') {
      found.push(`${where}a clean end after ${end.received} of ${end.other.length} bytes`)
    } else if (end.received === end.other.length && end.receivedHash.digest('hex') !== end.other.sentHash.digest('hex'))
      found.push(`${where}other bytes`)
  }
  if (end.error === undefined && end.closes === 1 && (end.ends !== 1 || end.sent !== end.length)) {
    found.push(`${where}closed without an error after ${end.sent} of ${end.length} bytes`)
  }
  return found
}

async function torture(setup: Setup): Promise<Report> {
  const native = nativeIo()
  const folder = mkdtempSync(join(tmpdir(), 'ambit-torture-'))
  const wrong: string[] = []
  let clean = 0
  let cut = 0
  const tls = (pair: KeyPair): TlsSettings => ({
    trust: () => setup.root,
    certificate: () => (pair === setup.server ? Promise.resolve(pair) : pair),
    verify: () => undefined,
    alpn: ['h2'],
    sessionKey: 'torture',
  })
  const kinds = ['tcp', 'tls', 'unix']
  const calls = Object.values(CALLS)
  const errors = [11 /* EAGAIN */, 104 /* ECONNRESET */, 24 /* EMFILE */, 12 /* ENOMEM */, 0 /* falls short */]
  for (let number = 0; number < setup.exchanges; number++) {
    const chance = new Chance(setup.seed * 100_003 + number)
    const kind = kinds[number % kinds.length] as string
    const over = Promise.withResolvers<void>()
    let left = 2
    const one = (): void => {
      left--
      // A connection that was never taken has one end only.
      if (left === 1 && client.closes === 1 && server.opens === 0 && server.closes === 0) {
        left = 0
      }
      if (left === 0) over.resolve()
    }
    const client: End = new End('client', chance, one)
    const server: End = new End('server', chance, one)
    client.other = server
    server.other = client
    // A listener of its own for each: what an injected fault leaves in its queue meets nobody else.
    const listener = await transport.listen({
      handler: server,
      ...(kind === 'unix' ? { path: join(folder, `socket-${number}`) } : { host: '127.0.0.1', port: 0 }),
      ...(kind === 'tls' ? { tls: tls(setup.server) } : {}),
    })
    const at = listener.address
    if (setup.faults) {
      // Every call with every error, each at several depths into the exchange.
      const call = calls[number % calls.length] as number
      const error = errors[Math.floor(number / calls.length) % errors.length] as number
      native.fault?.(call, error, chance.below(40), 1 + chance.below(3), 1 + chance.below(2_000))
    }
    transport.connect({
      handler: client,
      ...(kind === 'unix' ? { path: at.address } : { host: at.address, port: at.port }),
      ...(kind === 'tls' ? { tls: tls(setup.client) } : {}),
      timeoutMs: 5_000,
    })
    const stuck = setTimeout(() => {
      wrong.push(`exchange ${number} (${kind}) is stuck: client ${state(client)}, server ${state(server)}`)
      client.connection?.abort('timeout')
      server.connection?.abort('timeout')
      over.resolve()
    }, STUCK_MS)
    await over.promise
    clearTimeout(stuck)
    for (const call of calls) native.fault?.(call, 0, 0, 0, 0)
    await listener.stop()
    const known = wrong.length
    wrong.push(...problems(number, kind, client))
    if (server.opens > 0) wrong.push(...problems(number, kind, server))
    if (client.error || server.error) cut++
    else if (wrong.length === known) clean++
  }
  for (let i = 0; i < 50 && native.stats().connections > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20))
  const { connections, chunks, tls: secure } = native.stats()
  rmSync(folder, { recursive: true, force: true })
  return {
    exchanges: setup.exchanges,
    clean,
    cut,
    injected: native.injected?.() ?? 0,
    wrong,
    // Counted for the process: with other threads at work it says nothing.
    left: { connections, chunks, tls: setup.alone ? secure : 0 },
  }
}

function state(end: End): string {
  return `sent ${end.sent}/${end.length} received ${end.received} opens ${end.opens} ends ${end.ends} closes ${end.closes}`
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      exchanges: { type: 'string', default: '200' },
      faults: { type: 'boolean', default: false },
      threads: { type: 'string', default: '1' },
      /** Certificates made elsewhere: a sanitizer's environment is not for openssl. */
      certificates: { type: 'string' },
    },
  })
  let material: { root: string; client: KeyPair; server: KeyPair }
  if (values.certificates !== undefined) {
    material = JSON.parse(readFileSync(values.certificates, 'utf8')) as typeof material
  } else {
    const root = testRoot('torture')
    material = {
      root: root.certificate,
      client: root.issue('spiffe://c/ns/a/sa/a'),
      server: root.issue('spiffe://c/ns/b/sa/b'),
    }
  }
  const setup: Setup = {
    seed: Number(values.seed),
    exchanges: Number(values.exchanges),
    faults: values.faults,
    alone: values.threads === '1',
    ...material,
  }
  const others = Array.from(
    { length: Number(values.threads) - 1 },
    (_, i) =>
      new Promise<Report>((resolve, reject) => {
        const worker = new Worker(new URL(import.meta.url), {
          workerData: { ...setup, seed: setup.seed + 1_000 * (i + 1) },
        })
        worker.once('message', resolve)
        worker.once('error', reject)
      }),
  )
  const reports = await Promise.all([torture(setup), ...others])
  console.log(JSON.stringify(reports))
}

/** Certificates for `--certificates`, written where the caller says. */
export function writeCertificates(file: string): void {
  const root = testRoot('torture')
  const material = {
    root: root.certificate,
    client: root.issue('spiffe://cluster.local/ns/a/sa/a'),
    server: root.issue('spiffe://cluster.local/ns/b/sa/b'),
  }
  writeFileSync(file, JSON.stringify(material))
}

if (!isMainThread && parentPort) parentPort.postMessage(await torture(workerData as Setup))
else if (process.argv[1] === new URL(import.meta.url).pathname) await main()
