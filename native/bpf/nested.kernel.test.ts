// Tries and maps in maps on a real kernel, seen from programs and from here.
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { codec, createLpmMap, createMap, createMapOfMaps, openObject, type BpfModule } from './index.ts'
import { SampleNested, SamplePrefix, libbpfSampleSchema } from './gen/test/libbpf_sample.ts'

let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  module = await openObject(join(import.meta.dirname, '../../bpf/build/libbpf_sample.bpf.o'), libbpfSampleSchema).load()
})
afterAll(() => module.close())
afterEach(() => delete process.env['AMBIT_BPF_FEATURES'])

describe('a trie', () => {
  const address = (text: string): Uint8Array => Uint8Array.from(text.split('.').map(Number))

  it('finds the longest prefix, for programs and for us', () => {
    const map = module.maps.sample_lpm
    map.set({ length: 0, address: address('0.0.0.0') }, 1)
    map.set({ length: 8, address: address('10.0.0.0') }, 8)
    map.set({ length: 17, address: address('10.1.128.0') }, 17)
    map.set({ length: 32, address: address('10.1.128.9') }, 32)
    for (const [to, value] of [
      ['10.1.128.9', 32],
      ['10.1.128.8', 17],
      ['10.1.127.255', 8],
      ['11.0.0.0', 1],
    ] as const) {
      const key = { length: 32, address: address(to) }
      expect(map.match(key), to).toBe(value)
      const data = Buffer.concat([new Uint8Array(14), codec.encode(SamplePrefix, key)])
      expect(module.programs.match_prefix.testRun({ data }).returned, to).toBe(value)
    }
    expect(map.delete({ length: 16, address: address('10.1.0.0') })).toBe(false)
    expect(map.delete({ length: 0, address: address('0.0.0.0') })).toBe(true)
    expect(map.match({ length: 32, address: address('11.0.0.0') })).toBeUndefined()
    expect([...map.entries()].map(([key, value]) => [key.length, value])).toEqual([
      [32, 32],
      [17, 17],
      [8, 8],
    ])
    map.clear()
    expect([...map.keys()]).toEqual([])
  })

  it('of our own takes IPv6 and forgets what is beyond the prefix', () => {
    const map = createLpmMap({ name: 'six', key: codec.prefix(16), value: codec.text(8), maxEntries: 4 })
    const long = new Uint8Array(16).fill(0xff)
    map.set({ length: 33, address: long }, 'net')
    const [[key]] = [...map.entries()] as [[codec.Prefix, string]]
    expect([...key.address]).toEqual([255, 255, 255, 255, 128, ...new Uint8Array(11)])
    expect(map.match({ length: 128, address: long })).toBe('net')
    expect(map.match({ length: 32, address: long })).toBeUndefined()
    expect(() => map.set({ length: 129, address: long }, '')).toThrow('A prefix of 129 bits')
    expect(() => map.set({ length: 8, address: new Uint8Array(4) }, '')).toThrow('An address of 4 bytes')
    map.close()
  })
})

describe('a map of maps', () => {
  const read = (table: number, first: number, second: number): SampleNested => {
    const input = { table, first, second, found: 0, first_value: 0n, second_value: 0n }
    const { context } = module.programs.read_table.testRun({ context: codec.encode(SampleNested, input) })
    return codec.decode(SampleNested, context)
  }

  it('gives programs the table under a key', () => {
    const tables = module.maps.sample_tables
    expect(read(1, 5, 6).found).toBe(0)
    const map = tables.create([
      [5, 50n],
      [6, 60n],
    ])
    tables.set(1, map)
    expect(() => tables.set(1, map, 'create')).toThrow('EEXIST')
    map.set(6, 66n) // still ours to write
    map.close() // and alive under its key
    expect(read(1, 5, 6)).toMatchObject({ found: 2, first_value: 50n, second_value: 66n })
    const again = tables.open(1)!
    expect([...again.entries()].toSorted(([a], [b]) => a - b)).toEqual([
      [5, 50n],
      [6, 66n],
    ])
    again.close()
    expect(tables.delete(1)).toBe(true)
    expect(tables.open(1)).toBeUndefined()
    expect(read(1, 5, 6).found).toBe(0)
  })

  it.each(['', '-batch:*'])('replaces a table whole: no program sees half of it (features %j)', async (features) => {
    process.env['AMBIT_BPF_FEATURES'] = features
    const tables = module.maps.sample_tables
    const table = (generation: bigint): [number, bigint][] =>
      Array.from({ length: 2000 }, (_, i) => [i, generation] as [number, bigint])
    await tables.replace(2, table(1n))
    const first = tables.innerId(2)
    let reads = 0
    let torn = 0
    for (let generation = 2n; generation <= 6n; generation++) {
      let done = false
      const replacing = tables.replace(2, table(generation)).finally(() => (done = true))
      while (!done) {
        const seen = read(2, 0, 1999)
        reads++
        if (seen.found !== 2 || seen.first_value !== seen.second_value) torn++
        await new Promise((resolve) => setImmediate(resolve))
      }
      await replacing
      expect(read(2, 0, 1999).first_value).toBe(generation)
    }
    expect(torn).toBe(0)
    expect(reads).toBeGreaterThan(10)
    expect(tables.innerId(2)).not.toBe(first)
    await expect(
      tables.replace(
        2,
        [...Array(5000).keys()].map((i) => [i, 0n]),
      ),
    ).rejects.toThrow('E2BIG')
    expect(read(2, 0, 1999).first_value).toBe(6n) // the old table stays
    tables.delete(2)
  })

  it.each(['', '-batch:*'])('replaces many tables, and takes others away (features %j)', async (features) => {
    process.env['AMBIT_BPF_FEATURES'] = features
    const tables = module.maps.sample_tables
    const entries = (value: bigint, count: number): [number, bigint][] =>
      Array.from({ length: count }, (_, i) => [i, value] as [number, bigint])
    await tables.replaceMany([
      [1, entries(1n, 3)],
      [2, entries(2n, 2000)],
      [3, []],
    ])
    expect([1, 2].map((key) => read(key, 0, 2).second_value)).toEqual([1n, 2n])
    expect(read(3, 0, 1).found).toBe(0)
    // Room for what is in it, unlike the one that was made to be filled later.
    const small = tables.open(1)!
    expect([small.shape.maxEntries, small.get(2)]).toEqual([3, 1n])
    small.close()
    await tables.replaceMany([
      [1, undefined],
      [4, entries(4n, 1)],
      [2, undefined],
      [9, undefined],
    ])
    expect([1, 2, 3, 4].map((key) => tables.has(key))).toEqual([false, false, true, true])
    // One that does not fit leaves the others as they were.
    await expect(
      tables.replaceMany([
        [3, entries(3n, 1)],
        [4, entries(5n, 5000)],
      ]),
    ).rejects.toThrow('E2BIG')
    expect([read(3, 0, 1).found, read(4, 0, 0).first_value]).toEqual([0, 4n])
    await tables.replaceMany([1, 2, 3, 4].map((key) => [key, undefined] as const))
    expect([...tables.keys()]).toEqual([])
  })

  it('takes no map of another shape', () => {
    const other = createMap('hash', { name: 'other', key: codec.u64, value: codec.u64, maxEntries: 1 })
    expect(() => module.maps.sample_tables.set(3, other as never)).toThrow('EINVAL')
    other.close()
  })

  it('can be made without an object, as an array too', async () => {
    const inner = { type: 'array', name: 'inner', key: codec.u32, value: codec.u32, maxEntries: 2 } as const
    const outer = createMapOfMaps('array_of_maps', { name: 'outer', key: codec.u32, maxEntries: 1 }, inner)
    expect(outer.open(0)).toBeUndefined()
    await outer.replace(0, [[1, 7]])
    const map = outer.open(0)!
    expect([map.get(0), map.get(1)]).toEqual([0, 7])
    map.close()
    outer.close()
  })
})
