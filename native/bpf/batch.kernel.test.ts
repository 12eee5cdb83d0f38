// Many entries at once on a real kernel, with its batches and without them.
import { afterEach, describe, expect, it } from 'vitest'
import { codec, createLpmMap, createMap, createPerCpuMap, hasFeature } from './index.ts'

afterEach(() => delete process.env['AMBIT_BPF_FEATURES'])

const numbered = (count: number): [number, bigint][] => Array.from({ length: count }, (_, i) => [i, BigInt(i) * 3n])
const sorted = <V>(lists: Iterable<[number, V][]>): [number, V][] => [...lists].flat().toSorted((a, b) => a[0] - b[0])
const hash = (maxEntries: number) =>
  createMap('hash', { name: 'many', key: codec.u32, value: codec.u64, maxEntries, onDemand: true })

it('the kernel has batches for hashes, arrays and tries, and none that remove from arrays', () => {
  for (const type of ['hash', 'lru_hash', 'percpu_hash'] as const) {
    for (const operation of ['lookup', 'take', 'update', 'delete'] as const) {
      expect(hasFeature(`batch:${type}/${operation}`), `${type} ${operation}`).toBe(true)
    }
  }
  expect(hasFeature('batch:lpm_trie/update')).toBe(true)
  expect(hasFeature('batch:hash_of_maps/update')).toBe(true)
  expect(hasFeature('batch:array/take')).toBe(false)
  expect(hasFeature('batch:sk_storage/lookup')).toBe(false)
})

describe.each(['with batches of the kernel', 'one by one'])('%s', (how) => {
  const choose = (): void => {
    if (how === 'one by one') process.env['AMBIT_BPF_FEATURES'] = '-batch:*'
  }

  it('a hash is written, read, thinned out and drained', () => {
    choose()
    const map = hash(10_000)
    expect(map.setMany(numbered(10_000), { batch: 300 })).toBe(10_000)
    expect(sorted(map.batches({ batch: 64 }))).toEqual(numbered(10_000))
    // Keys that are not there are passed over, wherever they stand.
    const some = [20_000, 1, 2, 30_000, 40_000, 3, 50_000]
    expect(map.deleteMany(some, { batch: 4 })).toBe(3)
    expect(map.deleteMany(some)).toBe(0)
    expect(sorted(map.drain({ batch: 500 }))).toEqual(numbered(10_000).filter(([key]) => key < 1 || key > 3))
    expect([...map.keys()]).toEqual([])
    expect([...map.batches()]).toEqual([])
    expect(map.setMany([])).toBe(0)
    map.close()
  })

  it('a drain that stops early leaves the rest', () => {
    choose()
    const map = hash(1000)
    map.setMany(numbered(1000))
    let taken = 0
    for (const list of map.drain({ batch: 100 })) {
      taken = list.length
      break
    }
    expect(taken).toBeGreaterThan(0)
    expect([...map.keys()].length).toBe(1000 - taken)
    map.close()
  })

  it('a full map says after how many entries, and keeps those', async () => {
    choose()
    const map = hash(10)
    expect(() => map.setMany(numbered(12), { batch: 4 })).toThrow(
      /Writing map many after 10 entries failed: .* answered E2BIG\. The map is full/,
    )
    expect([...map.keys()].length).toBe(10)
    await expect(map.setManyAsync(numbered(12), { mode: 'create' })).rejects.toThrow('after 0 entries')
    map.close()
  })

  it('off the event loop, which goes on meanwhile', async () => {
    choose()
    const map = hash(50_000)
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    expect(await map.setManyAsync(numbered(50_000))).toBe(50_000)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(3)
    expect(map.get(49_999)).toBe(149_997n)
    map.close()
  })

  it('per-CPU values come as lists, and total as sums', () => {
    choose()
    const map = createPerCpuMap('percpu_hash', { name: 'edges', key: codec.u32, value: codec.u32, maxEntries: 100 })
    map.set(0, [])
    const cpus = map.get(0)!.length
    const values = Array.from({ length: cpus }, (_, cpu) => cpu + 1)
    expect(map.setMany(Array.from({ length: 100 }, (_, key) => [key, values]))).toBe(100)
    const all = sorted(map.drain({ batch: 16 }))
    expect(all.length).toBe(100)
    expect(all[99]).toEqual([99, values])
    expect(map.total(all[0]![1])).toBe((cpus * (cpus + 1)) / 2)
    expect([...map.keys()]).toEqual([])
    map.close()
  })

  it('an array is written and read, and keeps its entries', () => {
    choose()
    const map = createMap('array', { name: 'slots', key: codec.u32, value: codec.u64, maxEntries: 100 })
    expect(map.setMany(numbered(100), { batch: 7 })).toBe(100)
    expect(sorted(map.batches({ batch: 7 }))).toEqual(numbered(100))
    expect(() => [...map.drain()]).toThrow('EINVAL')
    map.close()
  })

  it('a trie is written, read and thinned out', () => {
    choose()
    const map = createLpmMap({ name: 'nets', key: codec.prefix(4), value: codec.u32, maxEntries: 256 })
    const net = (i: number): codec.Prefix => ({ length: 24, address: Uint8Array.of(10, 0, i, 77) })
    expect(map.setMany(Array.from({ length: 200 }, (_, i) => [net(i), i]))).toBe(200)
    const lists = [...map.batches({ batch: 33 })].flat()
    expect(lists.map(([, value]) => value).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, i) => i))
    expect(lists.every(([key]) => key.length === 24 && key.address[3] === 0)).toBe(true)
    expect(map.deleteMany([net(1), net(250), net(2)])).toBe(2)
    expect([...map.entries()].length).toBe(198)
    map.close()
  })
})

it('a batch smaller than a bucket of the hash grows until it fits', () => {
  // One entry a call: with more entries than buckets, some bucket has two.
  const map = hash(4096)
  map.setMany(numbered(4096))
  expect(sorted(map.batches({ batch: 1 }))).toEqual(numbered(4096))
  map.close()
})

it('a batch of no or of too many entries is refused', () => {
  const map = hash(1)
  expect(() => map.setMany([], { batch: 0 })).toThrow('A batch has from 1')
  expect(() => [...map.batches({ batch: 2 ** 21 })]).toThrow('A batch has from 1')
  map.close()
})
