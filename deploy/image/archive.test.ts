// What an archive holds: layers by the Dockerfile's steps, the same bytes for the same files, digests that are true.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { describe as imageOf, layersOf, packLayer, walk, writeArchive } from './archive.ts'
import { parseDockerfile } from './dockerfile.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ambit-archive-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A root with a few files; `age` is when they were written. */
function makeRoot(name: string, age: number): string {
  const root = join(folder, name)
  mkdirSync(join(root, 'usr/bin'), { recursive: true })
  writeFileSync(join(root, 'usr/bin/tool'), '#!/bin/sh\n', { mode: 0o755 })
  writeFileSync(join(root, 'usr/text'), 'text')
  symlinkSync('usr/bin', join(root, 'bin'))
  for (const path of ['usr/bin/tool', 'usr/text', 'usr']) utimesSync(join(root, path), age, age)
  return root
}

function pathsOf(root: string): string[] {
  const paths: string[] = []
  walk(root, '', (path) => paths.push(path))
  return paths
}

const run = { user: '1:2', workdir: '/w', environment: ['A=b'], entrypoint: ['/e'], command: ['c'] }

describe('the layers of an image', () => {
  it('are what no COPY brought, then one for each place that files are copied from, in order', () => {
    const { stages } = parseDockerfile(
      'FROM a AS b\nFROM c\nWORKDIR /opt\nCOPY --from=b /src/modules modules\nCOPY --from=b /src/x y/\nCOPY package.json ./\nCOPY code code',
    )
    const { names, indexOf } = layersOf(stages[1]!)
    expect(names).toEqual(['base', 'b', 'context'])
    const places = ['/usr/bin/sh', '/opt/modules/a/b', '/opt/y/x', '/opt/package.json', '/opt/code/c', '/optional']
    expect(places.map(indexOf)).toEqual([0, 1, 1, 2, 2, 0])
  })

  it('have the same bytes for the same files, whenever they were written, and other bytes for others', async () => {
    const [first, second] = [makeRoot('first', 1_000), makeRoot('second', 2_000)]
    const pack = (root: string, store: string) => packLayer('x', root, pathsOf(root), join(folder, store))
    const one = await pack(first, 's1')
    expect(await pack(second, 's2')).toEqual(one)
    expect(await pack(second, 's1')).toEqual({ ...one, fresh: false })
    writeFileSync(join(second, 'usr/text'), 'next')
    expect((await pack(second, 's2')).diffId).not.toBe(one.diffId)
  })

  it('carry the folders that their files lie in', async () => {
    const root = makeRoot('root', 1_000)
    const store = join(folder, 'store')
    const { digest } = await packLayer('x', root, ['usr/bin/tool'], store)
    const listed = spawnSync(
      'sh',
      [
        '-c',
        `"$0" -e 'process.stdout.write(require("zlib").zstdDecompressSync(require("fs").readFileSync(process.argv[1])))' "$1" | tar -tf -`,
        process.execPath,
        join(store, digest),
      ],
      { encoding: 'utf8' },
    )
    expect(listed.stdout.split('\n')).toEqual(['usr/', 'usr/bin/', 'usr/bin/tool', ''])
  })
})

describe('an archive', () => {
  it('names images in both ways, and every digest in it is that of the bytes', async () => {
    const root = makeRoot('root', 1_000)
    const store = join(folder, 'store')
    const base = await packLayer('base', root, ['usr/text'], store)
    const top = await packLayer('top', root, ['usr/bin/tool'], store)
    const file = join(folder, 'images.tar')
    writeArchive(file, [imageOf('a/b:1', [base], run), imageOf('a/c:2', [base, top], run)], [base], store)
    const out = join(folder, 'out')
    mkdirSync(out)
    expect(spawnSync('tar', ['-C', out, '-xf', file]).status).toBe(0)
    const json = <T>(path: string): T => JSON.parse(readFileSync(join(out, path), 'utf8')) as T
    const blobs = readdirSync(join(out, 'blobs/sha256'))
    for (const name of blobs)
      expect(
        createHash('sha256')
          .update(readFileSync(join(out, 'blobs/sha256', name)))
          .digest('hex'),
      ).toBe(name)
    // Whoever imports this one has the base already.
    expect(blobs).toContain(top.digest)
    expect(blobs).not.toContain(base.digest)
    type Index = { manifests: { digest: string; annotations: Record<string, string> }[] }
    const { manifests } = json<Index>('index.json')
    expect(manifests.map((one) => one.annotations['io.containerd.image.name'])).toEqual(['a/b:1', 'a/c:2'])
    const docker = json<{ Config: string; RepoTags: string[]; Layers: string[] }[]>('manifest.json')
    expect(docker.map((one) => one.RepoTags)).toEqual([['a/b:1'], ['a/c:2']])
    type Manifest = { config: { digest: string }; layers: { digest: string; size: number }[] }
    const manifest = json<Manifest>(`blobs/sha256/${manifests[1]!.digest.slice(7)}`)
    expect(docker[1]!.Layers).toEqual(manifest.layers.map((one) => `blobs/sha256/${one.digest.slice(7)}`))
    expect(json(`blobs/sha256/${manifest.config.digest.slice(7)}`)).toMatchObject({
      os: 'linux',
      config: { User: '1:2', WorkingDir: '/w', Env: ['A=b'], Entrypoint: ['/e'], Cmd: ['c'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${base.diffId}`, `sha256:${top.diffId}`] },
    })
  })
})
