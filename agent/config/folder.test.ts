import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadPaths, type FolderCache } from './folder.ts'

const NAMESPACE = (name: string) => `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'ambit-folder-'))))
afterEach(() => rmSync(folder, { recursive: true }))

const write = (name: string, text: string) => {
  mkdirSync(join(folder, name, '..'), { recursive: true })
  writeFileSync(join(folder, name), text)
}
const names = (paths = [folder]) =>
  loadPaths(paths).files.map((one) => [
    one.file.slice(folder.length + 1),
    one.parsed?.resources.map((each) => each.metadata.name),
  ])

describe('reading a folder', () => {
  it('takes YAML and JSON files of all its folders in the order of their paths', () => {
    write('b.yaml', NAMESPACE('b'))
    write('a/z.yml', NAMESPACE('a'))
    write('c.json', '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}')
    expect(names()).toEqual([
      ['a/z.yml', ['a']],
      ['b.yaml', ['b']],
      ['c.json', ['c']],
    ])
  })

  it('leaves out images.yaml, hidden names and other files', () => {
    write('images.yaml', 'a: b\n')
    write('.hidden.yaml', NAMESPACE('h'))
    write('.git/x.yaml', NAMESPACE('g'))
    write('README.md', 'text')
    expect(names()).toEqual([])
  })

  it('follows links, as a mounted ConfigMap needs', () => {
    write('.data/a.yaml', NAMESPACE('a'))
    symlinkSync('.data/a.yaml', join(folder, 'a.yaml'))
    expect(names()).toEqual([['a.yaml', ['a']]])
  })

  it('names what cannot be read and reads the rest', () => {
    write('a.yaml', NAMESPACE('a'))
    write('bad.yaml', Buffer.from([0xff]).toString('latin1'))
    writeFileSync(join(folder, 'bytes.yaml'), new Uint8Array([0xff, 0x00]))
    const loaded = loadPaths([folder, '/does/not/exist'])
    expect(loaded.files.map((one) => one.parsed !== undefined)).toEqual([true, true, false])
    expect(loaded.unreadable).toEqual(['/does/not/exist'])
    expect(loaded.problems.map((one) => one.code)).toEqual(['CONFIG_UNREADABLE', 'CONFIG_YAML_INVALID'])
  })

  it('does not read a file again that did not change, and reads one again that did', () => {
    write('a.yaml', NAMESPACE('a'))
    const file = join(folder, 'a.yaml')
    utimesSync(file, 1000, 1000)
    const cache: FolderCache = new Map()
    const first = loadPaths([folder], cache).files[0]?.parsed
    chmodSync(file, 0o000)
    expect(loadPaths([folder], cache).files[0]?.parsed).toBe(first)
    chmodSync(file, 0o644)
    writeFileSync(file, NAMESPACE('b'))
    expect(loadPaths([folder], cache).files[0]?.parsed?.resources[0]?.metadata.name).toBe('b')
    rmSync(file)
    expect(loadPaths([folder], cache).files).toEqual([])
    expect(cache.size).toBe(0)
  })

  it('reads a file again that was changed in the same tick as it was read', () => {
    write('a.yaml', NAMESPACE('a'))
    const cache: FolderCache = new Map()
    loadPaths([folder], cache)
    const file = join(folder, 'a.yaml')
    const cached = cache.get(file)
    writeFileSync(file, NAMESPACE('b'))
    // As if the kernel's clock had not moved in between.
    utimesSync(file, (cached?.modified ?? 0) / 1000, (cached?.modified ?? 0) / 1000)
    expect(loadPaths([folder], cache).files[0]?.parsed?.resources[0]?.metadata.name).toBe('b')
  })
})
