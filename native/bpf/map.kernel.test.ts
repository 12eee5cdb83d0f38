// Maps of every kind on a real kernel.
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { closeFd, codec, createMap, openObject, socketCookie, socketIn, type BpfModule } from './index.ts'
import { SampleValue, libbpfSampleSchema, type SampleKey } from './gen/test/libbpf_sample.ts'

const here = '/proc/self/ns/net'
let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  module = await openObject(join(import.meta.dirname, '../../bpf/build/libbpf_sample.bpf.o'), libbpfSampleSchema).load()
})
afterAll(() => module.close())

const key = (port: number): SampleKey => ({ address: new Uint8Array(16).fill(port), port, family: 4 })
const value = (big: bigint): SampleValue => ({ ...codec.decode(SampleValue, new Uint8Array(SampleValue.size)), big })

describe('a hash', () => {
  it('gets, sets, takes and deletes', () => {
    const map = module.maps.sample_hash
    expect(map.get(key(1))).toBeUndefined()
    expect(map.has(key(1))).toBe(false)
    expect(map.delete(key(1))).toBe(false)
    map.set(key(1), value(10n))
    expect(map.get(key(1))).toEqual(value(10n))
    expect(map.has(key(1))).toBe(true)
    expect(map.take(key(1))?.big).toBe(10n)
    expect(map.take(key(1))).toBeUndefined()
  })

  it('keeps new and old apart when asked', () => {
    const map = module.maps.sample_hash
    expect(() => map.set(key(2), value(1n), 'replace')).toThrow('ENOENT')
    map.set(key(2), value(1n), 'create')
    expect(() => map.set(key(2), value(2n), 'create')).toThrow('EEXIST')
    map.set(key(2), value(3n), 'replace')
    expect(map.get(key(2))?.big).toBe(3n)
    map.clear()
  })

  it('walks its entries, also while they are deleted, and clears', () => {
    const map = module.maps.sample_hash
    for (let port = 1; port <= 16; port++) map.set(key(port), value(BigInt(port)))
    expect([...map.entries()].map(([k, v]) => [k.port, v.big]).toSorted((a, b) => Number(a[0]) - Number(b[0]))).toEqual(
      Array.from({ length: 16 }, (_, i) => [i + 1, BigInt(i + 1)]),
    )
    for (const each of map.keys()) if (each.port % 2 === 0) map.delete(each)
    expect([...map.keys()].map((k) => k.port).toSorted((a, b) => a - b)).toEqual([1, 3, 5, 7, 9, 11, 13, 15])
    map.clear()
    expect([...map.keys()]).toEqual([])
  })

  it('says that it is full, with the way out', () => {
    const map = module.maps.sample_hash
    for (let port = 1; port <= 16; port++) map.set(key(port), value(0n))
    expect(() => map.set(key(17), value(0n))).toThrow(/E2BIG\. The map is full: raise its maxEntries/)
    map.clear()
  })
})

it('an LRU hash makes room by itself', () => {
  const map = module.maps.sample_lru
  for (let i = 0; i < 100; i++) map.set(i, BigInt(i))
  expect([...map.keys()].length).toBeLessThanOrEqual(16)
  expect(map.get(99)).toBe(99n)
})

it('an array has all its entries always', () => {
  const map = module.maps.sample_array
  expect(map.get(0)).toBe(0n)
  map.set(1, (1n << 64n) - 1n)
  expect([...map.entries()]).toEqual([
    [0, 0n],
    [1, (1n << 64n) - 1n],
    [2, 0n],
    [3, 0n],
  ])
  expect(map.get(4)).toBeUndefined()
  expect(() => map.delete(1)).toThrow('EINVAL')
})

it('a per-CPU map gives a value per processor, and their sum', () => {
  const map = module.maps.sample_percpu
  const values = map.get(2)!
  expect(values.length).toBeGreaterThanOrEqual(1)
  map.set(
    2,
    values.map((_, cpu) => ({ packets: BigInt(cpu + 1), errors: 3 })),
  )
  expect(map.get(2)!.map(({ packets }) => packets)).toEqual(values.map((_, cpu) => BigInt(cpu + 1)))
  const count = values.length
  expect(map.sum(2)).toEqual({ packets: BigInt((count * (count + 1)) / 2), errors: 3 * count })
  expect([...map.sums()].find(([slot]) => slot === 2)?.[1].errors).toBe(3 * count)
})

it('socket storage is reached by the socket’s descriptor and dies with the socket', () => {
  const map = module.maps.sample_storage
  const socket = socketIn(here, { family: 4 })
  expect(map.get(socket)).toBeUndefined()
  map.set(socket, key(443))
  expect(map.get(socket)).toEqual(key(443))
  expect(map.delete(socket)).toBe(true)
  map.set(socket, key(444))
  closeFd(socket)
  expect(() => map.get(socket)).toThrow('EBADF')
})

it('a socket map takes a descriptor and gives the cookie, until the socket is closed', () => {
  const map = module.maps.sample_sockets
  const socket = socketIn(here, { family: 4, bind: { address: '127.0.0.1' }, listen: {} })
  map.set(9, socket)
  expect(map.cookie(9)).toBe(socketCookie(socket))
  closeFd(socket)
  expect(map.cookie(9)).toBeUndefined()
})

it('a map can be made without an object', () => {
  const map = createMap('hash', { name: 'loose', key: codec.u32, value: codec.text(8), maxEntries: 2 })
  map.set(1, 'one')
  expect([...map.entries()]).toEqual([[1, 'one']])
  map.close()
  expect(() => map.get(1)).toThrow('Map loose is closed')
})

it('a map of a closed module refuses instead of touching a foreign descriptor', async () => {
  const other = await openObject(module.path, libbpfSampleSchema).load()
  const map = other.maps.sample_array
  const byName = other.map('sample_array', codec.u32, codec.u64)
  const { add } = other.programs
  other.close()
  expect(() => map.get(0)).toThrow('is closed')
  expect(() => byName.get(0)).toThrow('is closed')
  expect(() => other.map('sample_array', codec.u32, codec.u64)).toThrow('is closed')
  expect(() => add.tag).toThrow('is closed')
})
