// What build.sh runs: builds the root file system, packs what changed, prints what there is. Must not live here: any of it.
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { imagesOf, packApps } from './apps.ts'
import { packImage, pruneBlobs, WORK, writeArchive, type Layer } from './archive.ts'
import { buildImage } from './rootfs.ts'

/** What build.sh prints. */
export interface Archives {
  /** The image's name: `ambit.local/ambit:0.1.0`. */
  readonly image: string
  /** To be imported in this order: a later one leaves out layers that an earlier one has. */
  readonly archives: readonly string[]
  /** Of the image's files and, compressed, of its layers. */
  readonly bytes: number
  readonly compressed: number
  readonly layers: readonly Layer[]
  /** Names of the applications' images. */
  readonly apps: readonly string[]
}

const say = (line: string): void => void process.stderr.write(`image: ${line}\n`)

async function main(folders: readonly string[]): Promise<Archives> {
  const began = performance.now()
  let steps = 0
  const image = buildImage((line) => {
    if (steps++ === 0) say("building the image by the Dockerfile's steps, about a minute the first time")
    if (line.includes(': RUN ')) say(line.length > 120 ? `${line.slice(0, 119)}…` : line)
  })
  const text = readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  const apps = imagesOf(folders)
  const sources = ['main.ts', 'apps.ts', 'archive.ts'].map((name) => readFileSync(join(import.meta.dirname, name)))
  const hash = createHash('sha256').update(image.key).update(version)
  for (const source of sources) hash.update(source)
  const key = hash.copy().digest('hex')
  const appsKey = hash.update(JSON.stringify(apps)).digest('hex').slice(0, 12)
  const ours = join(WORK, `ambit-${version}.tar`)
  const theirs = join(WORK, `apps-${appsKey}.tar`)
  const stamp = join(WORK, 'archives.json')
  const known = existsSync(stamp) ? (JSON.parse(readFileSync(stamp, 'utf8')) as Archives & { key: string }) : undefined
  if (known?.key === key && existsSync(ours) && (apps.length === 0 || existsSync(theirs)))
    return told(known, ours, theirs, apps)

  const packed = await packImage(image, `ambit.local/ambit:${version}`, say)
  const others = apps.length === 0 ? [] : await packApps(image, packed, apps)
  if (known?.key !== key)
    for (const name of readdirSync(WORK)) if (/^(apps|ambit)-.*\.tar$/.test(name)) rmSync(join(WORK, name))
  writeArchive(ours, [packed])
  if (others.length > 0) writeArchive(theirs, others, packed.layers)
  pruneBlobs([packed, ...others])
  const archives = {
    key,
    image: packed.name,
    bytes: image.size,
    compressed: packed.layers.reduce((sum, layer) => sum + layer.compressed, 0),
    layers: packed.layers,
  }
  writeFileSync(stamp, JSON.stringify(archives))
  say(`made ${ours} in ${((performance.now() - began) / 1000).toFixed(1)} s`)
  return told(archives, ours, theirs, apps)
}

function told(
  { image, bytes, compressed, layers }: Omit<Archives, 'archives' | 'apps'>,
  ours: string,
  theirs: string,
  apps: readonly { name: string }[],
): Archives {
  const archives = apps.length === 0 ? [ours] : [ours, theirs]
  return { image, archives, bytes, compressed, layers, apps: apps.map((app) => app.name) }
}

try {
  process.stdout.write(`${JSON.stringify(await main(process.argv.slice(2).map((path) => resolve(path))))}\n`)
} catch (error) {
  process.stderr.write(`image: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
