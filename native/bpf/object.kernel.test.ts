// Opening, configuring and loading on a real kernel.
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { World } from '../../test/world/netns.ts'
import { VerifierError, codec, ensureBpffs, isBpffs, openObject, openPinnedBytes, openPinnedMap } from './index.ts'
import { SampleKey, SampleRun, SampleValue, libbpfSampleSchema } from './gen/test/libbpf_sample.ts'
import { libbpfRefusedSchema } from './gen/test/libbpf_refused.ts'

const build = join(import.meta.dirname, '../../bpf/build')
const sample = join(build, 'libbpf_sample.bpf.o')
const refused = join(build, 'libbpf_refused.bpf.o')

let world: World
beforeAll(() => {
  world = new World()
})
afterAll(() => world.close())

describe('opening', () => {
  it('refuses an object whose layout is not that of the generated code', () => {
    const layout = { ...libbpfSampleSchema.layout, sample_key: { size: 24, members: {} } }
    expect(() => openObject(sample, { ...libbpfSampleSchema, layout })).toThrow(
      'struct sample_key has 20 bytes, not 24',
    )
    const moved = { ...libbpfSampleSchema.layout, sample_key: { size: 20, members: { family: 16 } } }
    expect(() => openObject(sample, { ...libbpfSampleSchema, layout: moved })).toThrow('sample_key.family is not at 16')
  })

  it('refuses a misspelt name instead of configuring nothing', () => {
    const object = openObject(sample)
    expect(() => (object.rodata['refused_prot'] = 1)).toThrow('has no constant refused_prot')
    expect(() => object.maps['nope']).toThrow('has no map nope')
    expect(() => object.programs['nope']).toThrow('has no program nope')
    object.close()
  })
})

describe('loading', () => {
  it('gives programs the constants set before', async () => {
    const object = openObject(sample, libbpfSampleSchema)
    expect(object.rodata.big_constant).toBe(1n)
    object.rodata.big_constant = 1n << 40n
    object.rodata.constant_struct = { delta: -3, list: [1, 2, 3] }
    using module = await object.load()
    const run = module.programs.add.testRun({ context: codec.encode(SampleRun, { first: 5, second: 6, sum: 0n }) })
    expect(run.returned).toBe(42)
    expect(codec.decode(SampleRun, run.context)).toEqual({ first: 5, second: 6, sum: (1n << 40n) + 8n })
    expect(() => (object.rodata.big_constant = 2n)).toThrow('can only be set before load')
  })

  it('sizes maps as configured', async () => {
    const object = openObject(sample, libbpfSampleSchema)
    object.maps.sample_array.maxEntries = 9
    using module = await object.load()
    module.maps.sample_array.set(8, 1n)
    expect(() => module.maps.sample_array.set(9, 1n)).toThrow('BPF_MAP_UPDATE_ELEM answered E2BIG')
  })

  it('names the program the verifier refused, its reason, and keeps the log', async () => {
    const error: unknown = await openObject(refused, libbpfRefusedSchema)
      .load()
      .catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(VerifierError)
    expect(error).toMatchObject({ program: 'forgets_null', code: 'EACCES' })
    const { summary, log } = error as VerifierError
    expect(summary).toMatch(/invalid mem access 'map_value_or_null'/)
    expect(log.length).toBeGreaterThan(5)
  })

  it('leaves out a program that is not wanted', async () => {
    const object = openObject(refused, libbpfRefusedSchema)
    object.programs.forgets_null.autoload = false
    using module = await object.load()
    expect(module.programs.fine.tag).toMatch(/^[0-9a-f]{16}$/)
    expect(() => module.programs.forgets_null).toThrow('has no loaded program forgets_null')
  })

  it('keeps the verifier’s words on request', async () => {
    using module = await openObject(sample, libbpfSampleSchema).load({ logLevel: 1 })
    expect(module.log).toMatch(/processed \d+ insns/)
  })

  it('works beside other threads that load the addon', async () => {
    const code = `
      const { openObject } = await import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)})
      const module = await openObject(${JSON.stringify(sample)}).load()
      ;(await import('node:worker_threads')).parentPort.postMessage(Object.keys(module.programs).length)
      module.close()`
    const answers = await Promise.all(
      [1, 2, 3].map(
        () =>
          new Promise((resolve, reject) => {
            const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
            worker.once('message', resolve)
            worker.once('error', reject)
          }),
      ),
    )
    expect(answers).toEqual([12, 12, 12])
  })

  it('can be done once only', async () => {
    const object = openObject(sample)
    using _module = await object.load()
    await expect(object.load()).rejects.toMatchObject({ code: 'CLOSED' })
  })
})

describe('pinned maps', () => {
  const key = { address: new Uint8Array(16).fill(1), port: 80, family: 2 }

  it('are adopted by the next load with all they hold', async () => {
    ensureBpffs()
    expect(isBpffs('/sys/fs/bpf')).toBe(true)
    const pinRoot = join(world.pinRoot, 'adopt')
    const value = codec.decode(SampleValue, new Uint8Array(SampleValue.size))
    {
      using module = await openObject(sample, libbpfSampleSchema).load({ pinRoot })
      module.maps.sample_hash.set(key, { ...value, big: 77n })
    }
    expect(readdirSync(pinRoot)).toEqual(['sample_hash'])
    using module = await openObject(sample, libbpfSampleSchema).load({ pinRoot })
    expect(module.maps.sample_hash.get(key)?.big).toBe(77n)
    const byPath = openPinnedMap(join(pinRoot, 'sample_hash'), SampleKey, SampleValue)
    const raw = openPinnedBytes(join(pinRoot, 'sample_hash'))
    expect([...raw.keys()].map((key) => key.length)).toEqual([20])
    raw.close()
    expect([...byPath.entries()].map(([, { big }]) => big)).toEqual([77n])
    byPath.close()
    expect(() => openPinnedMap(join(pinRoot, 'sample_hash'), codec.u32, SampleValue)).toThrow('has keys of 20 bytes')
  })

  it('are refused by name when their shape has changed', async () => {
    const pinRoot = join(world.pinRoot, 'mismatch')
    {
      using _module = await openObject(sample, libbpfSampleSchema).load({ pinRoot })
    }
    const object = openObject(sample, libbpfSampleSchema)
    object.maps.sample_hash.maxEntries = 17
    await expect(object.load({ pinRoot })).rejects.toMatchObject({
      code: 'PIN_MISMATCH',
      message: expect.stringContaining(join(pinRoot, 'sample_hash')) as string,
    })
  })

  it('are not made without a pin folder', async () => {
    using _module = await openObject(sample, libbpfSampleSchema).load()
    expect(existsSync('/sys/fs/bpf/sample_hash')).toBe(false)
  })

  it('can be shared by hand', async () => {
    using first = await openObject(sample, libbpfSampleSchema).load()
    const object = openObject(sample, libbpfSampleSchema)
    object.maps.sample_array.reuse(first.maps.sample_array)
    using second = await object.load()
    first.maps.sample_array.set(2, 5n)
    expect(second.maps.sample_array.get(2)).toBe(5n)
  })

  afterAll(() => rmSync(world.pinRoot, { recursive: true, force: true }))
})
