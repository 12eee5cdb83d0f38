// The ring buffer on the event loop.
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { codec, openObject, type BpfModule } from './index.ts'
import { SampleBurst, SampleEvent, libbpfSampleSchema } from './gen/test/libbpf_sample.ts'

let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  module = await openObject(join(import.meta.dirname, '../../bpf/build/libbpf_sample.bpf.o'), libbpfSampleSchema).load()
})
afterAll(() => module.close())

const emit = (records: number): number => {
  const { context } = module.programs.emit.testRun({ context: codec.encode(SampleBurst, { records, dropped: 0 }) })
  return codec.decode(SampleBurst, context).dropped
}

/** Lets the loop turn until a condition holds. */
const until = async (condition: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 10_000 && !condition(); turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe('a ring', () => {
  it('delivers records in order, several in one call', async () => {
    const calls: SampleEvent[][] = []
    const listener = module.maps.sample_ring.listen(SampleEvent, (records) => calls.push(records))
    emit(5)
    await until(() => calls.length > 0)
    expect(calls.length).toBe(1)
    expect(calls[0]!.map(({ sequence, text }) => [sequence, text])).toEqual(
      [0n, 1n, 2n, 3n, 4n].map((sequence) => [sequence, 'event']),
    )
    listener.close()
  })

  it('bounds a turn, so that timers and others get theirs during a flood, and loses nothing', async () => {
    let turns = 0
    let seen = 0
    const batches: { size: number; turn: number }[] = []
    const tick = setImmediate(function again() {
      turns++
      if (seen < 1000) setImmediate(again)
    })
    const listener = module.maps.sample_ring.listen(
      SampleEvent,
      (records) => {
        seen += records.length
        batches.push({ size: records.length, turn: turns })
      },
      { maxRecords: 100 },
    )
    expect(emit(1000)).toBe(0)
    await until(() => seen === 1000)
    clearImmediate(tick)
    expect(seen).toBe(1000)
    expect(Math.max(...batches.map(({ size }) => size))).toBe(100)
    expect(new Set(batches.map(({ turn }) => turn)).size).toBe(batches.length)
    listener.close()
  })

  it('drops, and the program knows, when nobody reads', async () => {
    const dropped = emit(1999) + emit(1999)
    expect(dropped).toBeGreaterThan(0)
    let seen = 0
    const listener = module.maps.sample_ring.listen(SampleEvent, (records) => (seen += records.length))
    await until(() => seen === 3998 - dropped)
    expect(seen).toBe(3998 - dropped)
    listener.close()
  })

  it('counts records too short for their type instead of making them up', async () => {
    const listener = module.maps.sample_ring.listen(codec.bytes(1000), () => undefined)
    emit(3)
    await until(() => listener.short === 3)
    expect(listener.short).toBe(3)
    listener.close()
  })

  it('of a worker thread goes with the thread, open as it is', async () => {
    const code = `
      const { openObject, codec } = await import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)})
      const module = await openObject(${JSON.stringify(module.path)}).load()
      module.maps.sample_ring.listen(codec.u64, () => undefined)
      ;(await import('node:worker_threads')).parentPort.postMessage('listening')`
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    expect(await worker.terminate()).toBe(1)
  })

  it('is silent once closed', async () => {
    let seen = 0
    const listener = module.maps.sample_ring.listen(SampleEvent, (records) => (seen += records.length))
    listener.unref().ref()
    emit(1)
    listener.close()
    listener.close()
    await until(() => false)
    expect(seen).toBe(0)
  })
})
