// The BTF parser and the generator on the real objects: generated files are fresh, layouts are the compiler's, and broken
// files are refused instead of read wrongly.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { readBtf } from './btf.ts'
import { decode, encode } from './codec.ts'
import { codecOf } from './dynamic.ts'
import { codeFor, generateAll } from './gen.ts'
import { SampleColor, SampleCounters, SampleValue } from './gen/test/libbpf_sample.ts'

const root = join(import.meta.dirname, '../..')
const object = join(root, 'bpf/build/libbpf_sample.bpf.o')
const folder = mkdtempSync(join(tmpdir(), 'ambit-btf-'))
afterAll(() => rmSync(folder, { recursive: true }))

const value: SampleValue = {
  big: (1n << 64n) - 1n,
  negative: -5n,
  inner: { delta: -1, list: [1, 2, 65535] },
  several: [
    { delta: 7, list: [0, 0, 1] },
    { delta: -8, list: [3, 2, 1] },
  ],
  name: 'twelve bytes',
  color: SampleColor.SAMPLE_BLUE,
  flag: true,
  network: 0xc0a80001,
}

describe('the generator', () => {
  it('would write exactly the files that are committed', () => {
    const wanted = generateAll(root)
    const folder = join(import.meta.dirname, 'gen')
    const present = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
    expect(present.sort()).toEqual([...wanted.keys()].sort())
    for (const [path, text] of wanted) expect(readFileSync(join(folder, path), 'utf8'), `stale: ${path}`).toBe(text)
  })

  it('agrees with codecs made from BTF at run time', () => {
    const btf = readBtf(object)
    const dynamic = codecOf(btf, btf.struct('sample_value')!.id)
    expect(dynamic.size).toBe(SampleValue.size)
    expect(encode(dynamic, value)).toEqual(encode(SampleValue, value))
    expect(decode(dynamic, encode(SampleValue, value))).toEqual(value)
    expect(decode(SampleValue, encode(SampleValue, value))).toEqual(value)
  })

  it('hides padding and keeps it zero', () => {
    expect([...encode(SampleCounters, { packets: 1n, errors: 2 })].slice(12)).toEqual([0, 0, 0, 0])
    expect(Object.keys(decode(SampleCounters, new Uint8Array(16)))).toEqual(['packets', 'errors'])
  })

  it('does not depend on the order in which the compiler lists types', () => {
    const btf = readBtf(object)
    const shuffled = Object.assign(Object.create(Object.getPrototypeOf(btf) as object) as typeof btf, btf, {
      maps: btf.maps.toReversed(),
      variables: btf.variables.toReversed(),
      programs: btf.programs.toReversed(),
    })
    expect(() => shuffled.types.length).not.toThrow()
    // #private members cannot be copied, so only plain fields are shuffled here; the text must not change.
    expect(codeFor(shuffled, 'libbpf_sample', '../../')).toBe(codeFor(btf, 'libbpf_sample', '../../'))
  })
})

describe('the BTF reader', () => {
  it('knows maps, programs and constants of an object', () => {
    const btf = readBtf(object)
    expect(btf.maps.find((map) => map.name === 'sample_hash')).toMatchObject({
      kind: 'hash',
      keySize: 20,
      valueSize: 80,
    })
    expect(btf.programs).toContain('to_socket')
    expect(btf.syscalls.toSorted()).toEqual(['add', 'emit', 'read_table'])
    const constant = btf.variables.find((variable) => variable.name === 'big_constant')
    expect(constant).toMatchObject({ section: '.rodata', size: 8 })
    expect(constant!.offset % 8).toBe(0)
  })

  it('says what to run when the object is missing', () => {
    expect(() => readBtf('/nonexistent.bpf.o')).toThrow('Run bpf/build.sh')
  })

  it('refuses what is no object file', () => {
    const path = join(folder, 'text.o')
    writeFileSync(path, 'hello')
    expect(() => readBtf(path)).toThrow('is not a BPF object: no ELF header')
  })

  it('refuses damaged files with an error of its own, never with wrong answers out of bounds', () => {
    const good = readFileSync(object)
    const path = join(folder, 'damaged.o')
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, byte, cut) => {
        const bad = Buffer.from(good.subarray(0, Math.max(cut, at + 1)))
        bad[at] = byte
        writeFileSync(path, bad)
        try {
          readBtf(path)
        } catch (error) {
          expect(error).toMatchObject({ name: 'BpfError' })
        }
      }),
      { numRuns: 300 },
    )
  })
})
