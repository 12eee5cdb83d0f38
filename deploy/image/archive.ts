// Packs a root file system as an image: layers, configuration and manifest as an OCI layout with Docker's manifest.json
// beside it, in one tar that `docker load`, `podman load` and `ctr images import` take. Same files, same bytes. Layers are
// compressed once and kept below build/image/blobs. Must not live here: how the files come about (rootfs.ts), images of
// sample applications (apps.ts).
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  createReadStream,
  createWriteStream,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress } from 'node:zlib'
import type { Stage } from './dockerfile.ts'
import type { Image } from './rootfs.ts'

const root = resolve(import.meta.dirname, '../..')
export const WORK = join(root, 'build/image')
const BLOBS = join(WORK, 'blobs')
/** A third of gzip's time at level 6, and smaller. */
const LEVEL = 6
const EPOCH = '1970-01-01T00:00:00Z'

export interface Layer {
  /** What it holds: `base`, or the stage or folder its files come from. */
  readonly name: string
  /** Of the tar as it is unpacked, and of the blob. */
  readonly diffId: string
  readonly digest: string
  readonly bytes: number
  readonly compressed: number
}

/** What a container of the image runs as, and how. */
export interface RunConfig {
  readonly user: string
  readonly workdir: string
  readonly environment: readonly string[]
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
}

export interface Packed {
  /** `ambit.local/ambit:0.1.0`. */
  readonly name: string
  readonly layers: readonly Layer[]
  readonly manifest: string
  readonly config: string
}

/** The files of a root in layers: first what no COPY brought, then what each stage or the context did, in their order. */
export function layersOf(stage: Stage): { readonly names: string[]; indexOf: (path: string) => number } {
  const names = ['base']
  const targets = new Map<string, number>()
  let workdir = '/'
  let last = ''
  for (const step of stage.steps) {
    if (step.kind === 'workdir') workdir = step.path
    if (step.kind !== 'copy') continue
    const from = step.from ?? 'context'
    if (from !== last) names.push(from)
    last = from
    targets.set(resolve(workdir, step.to), names.length - 1)
  }
  const indexOf = (path: string): number => {
    for (let at = path; at !== '/'; at = dirname(at)) {
      const index = targets.get(at)
      if (index !== undefined) return index
    }
    return 0
  }
  return { names, indexOf }
}

/** Packs an image of the Dockerfile. `say` hears of layers that are compressed anew. */
export async function packImage(image: Image, name: string, say: (line: string) => void): Promise<Packed> {
  const { names, indexOf } = layersOf(image.stage)
  const lists = names.map(() => [] as string[])
  walk(image.root, '', (path) => lists[indexOf(`/${path}`)]?.push(path))
  // Few, and each compressed by one thread: all at once.
  const layers = await Promise.all(
    lists.map(async (list, index) => {
      const layer = await packLayer(names[index] ?? '', image.root, list)
      if (layer.fresh) say(`layer ${layer.name}: ${megabytes(layer.bytes)}, compressed ${megabytes(layer.compressed)}`)
      return layer
    }),
  )
  return describe(name, layers, image)
}

/** Every path below a folder that a layer holds, parents first, in an order of bytes. */
export function walk(folder: string, below: string, visit: (path: string) => void): void {
  const entries = readdirSync(join(folder, below), { withFileTypes: true })
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`
    visit(path)
    if (entry.isDirectory()) walk(folder, path, visit)
  }
}

/** One layer of these paths, with the folders they lie in. */
export async function packLayer(
  name: string,
  folder: string,
  paths: readonly string[],
  store: string = BLOBS,
): Promise<Layer & { readonly fresh: boolean }> {
  const all = new Set<string>()
  for (const path of paths) {
    const parts = path.split('/')
    for (let n = 1; n <= parts.length; n++) all.add(parts.slice(0, n).join('/'))
  }
  const list = [...all].join('\0')
  const hash = createHash('sha256')
  let bytes = 0
  await tarOf(folder, list, async (stream) => {
    for await (const chunk of stream) {
      hash.update(chunk as Buffer)
      bytes += (chunk as Buffer).length
    }
  })
  const diffId = hash.digest('hex')
  const known = join(store, `${diffId}.json`)
  if (existsSync(known)) {
    const layer = { ...(JSON.parse(readFileSync(known, 'utf8')) as Layer), name }
    if (existsSync(join(store, layer.digest))) return { ...layer, fresh: false }
  }
  mkdirSync(store, { recursive: true })
  const part = join(mkdtempSync(join(store, 'part-')), 'blob')
  const compress = createZstdCompress({
    params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
  })
  await tarOf(folder, list, (stream) => pipeline(stream, compress, createWriteStream(part)))
  const digest = await digestOf(part)
  const layer = { name, diffId, digest, bytes, compressed: lstatSync(part).size }
  renameSync(part, join(store, digest))
  rmSync(dirname(part), { recursive: true })
  writeFileSync(known, JSON.stringify(layer))
  return { ...layer, fresh: true }
}

/** Ours as well as Debian's files keep their owners; no time of change and nothing of this machine's umask gets in. */
async function tarOf(folder: string, list: string, take: (stream: Readable) => Promise<void>): Promise<void> {
  const flags = '--null --no-recursion --format=gnu --numeric-owner --mtime=@0 -T - -cf -'.split(' ')
  const child = spawn('tar', ['-C', folder, ...flags], { stdio: ['pipe', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  child.stdin.on('error', () => undefined)
  child.stdin.end(list)
  const [, [code]] = await Promise.all([take(child.stdout), once(child, 'close') as Promise<[number | null]>])
  if (code !== 0) throw new Error(`tar of ${folder} failed: ${errors}`)
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/** Configuration and manifest of an image of these layers. */
export function describe(name: string, layers: readonly Layer[], run: RunConfig): Packed {
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
  const config = JSON.stringify({
    architecture,
    os: 'linux',
    created: EPOCH,
    config: {
      User: run.user,
      WorkingDir: run.workdir,
      Env: run.environment,
      Entrypoint: run.entrypoint,
      Cmd: run.command,
    },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${layer.diffId}`) },
    history: layers.map((layer) => ({ created: EPOCH, created_by: layer.name })),
  })
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: `sha256:${sha256(config)}`,
      size: config.length,
    },
    layers: layers.map((layer) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
      digest: `sha256:${layer.digest}`,
      size: layer.compressed,
    })),
  })
  return { name, layers, manifest, config }
}

/**
 * Writes images into one tar. Layers of `without` are left out: whoever imports it has them from another archive.
 * The file is replaced whole.
 */
export function writeArchive(
  file: string,
  images: readonly Packed[],
  without: readonly Layer[] = [],
  store: string = BLOBS,
): void {
  const folder = `${file}.part`
  rmSync(folder, { recursive: true, force: true })
  const blobs = join(folder, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const left = new Set(without.map((layer) => layer.digest))
  const put = (text: string): string => {
    writeFileSync(join(blobs, sha256(text)), text)
    return sha256(text)
  }
  for (const image of images) {
    for (const { digest } of image.layers)
      if (!left.has(digest) && !existsSync(join(blobs, digest))) linkSync(join(store, digest), join(blobs, digest))
    put(image.config)
    put(image.manifest)
  }
  const json = (name: string, value: unknown): void => writeFileSync(join(folder, name), JSON.stringify(value))
  json('oci-layout', { imageLayoutVersion: '1.0.0' })
  json('index.json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: images.map((image) => ({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: `sha256:${sha256(image.manifest)}`,
      size: image.manifest.length,
      annotations: {
        'io.containerd.image.name': image.name,
        'org.opencontainers.image.ref.name': image.name.replace(/^.*:/, ''),
      },
    })),
  })
  json(
    'manifest.json',
    images.map((image) => ({
      Config: `blobs/sha256/${sha256(image.config)}`,
      RepoTags: [image.name],
      Layers: image.layers.map((layer) => `blobs/sha256/${layer.digest}`),
    })),
  )
  // What everything else refers to comes first, so that nobody has to read the file twice.
  const flags = '--format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf'.split(
    ' ',
  )
  const names = ['oci-layout', 'index.json', 'manifest.json', 'blobs']
  const done = spawnSync('tar', ['-C', folder, ...flags, `${folder}.tar`, ...names], { encoding: 'utf8' })
  rmSync(folder, { recursive: true })
  if (done.status !== 0) throw new Error(`tar of ${file} failed: ${done.stderr}`)
  renameSync(`${folder}.tar`, file)
}

/** Forgets compressed layers that no archive of now has. */
export function pruneBlobs(images: readonly Packed[]): void {
  const kept = new Set(images.flatMap(({ layers }) => layers.flatMap((one) => [one.digest, `${one.diffId}.json`])))
  for (const name of readdirSync(BLOBS)) if (!kept.has(name)) rmSync(join(BLOBS, name), { recursive: true })
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`
}
