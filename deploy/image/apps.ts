// Images of the sample applications that manifests name: our image's own layers, curl on top, and `ambit app echo` or what
// images.yaml says as the program; so that manifests written for the sandbox run on a real cluster without a registry.
// Must not live here: packing (archive.ts), the applications (agent/sandbox/app).
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { IMAGES_FILE, parseImages } from '../../agent/config/images.ts'
import { describe, packLayer, walk, WORK, type Packed } from './archive.ts'
import { installPackages, linkFolders, packageVersions } from './debian.ts'
import type { Image } from './rootfs.ts'

/** What people type inside a pod. */
const TOOLS = ['curl']

export interface AppImage {
  /** As a runtime writes it: `docker.io/library/my-service:v1`. */
  readonly name: string
  /** Its program; undefined: the echo app. */
  readonly command: readonly string[] | undefined
  /** Ports of the containers that have it: `http:8080`. */
  readonly ports: readonly string[]
}

interface ContainerLike {
  readonly image?: unknown
  readonly ports?: readonly { readonly name?: string; readonly containerPort?: number; readonly protocol?: string }[]
}

/** Full name of an image, by the rules of Docker's and Kubernetes' runtimes. A name with a digest is none of ours. */
export function fullName(image: string): string | undefined {
  if (image === '' || image.includes('@')) return undefined
  const parts = image.split('/')
  const host = parts.length > 1 && /[.:]|^localhost$/.test(parts[0] ?? '')
  const path = host ? image : `docker.io/${parts.length > 1 ? '' : 'library/'}${image}`
  return path.slice(path.lastIndexOf('/')).includes(':') ? path : `${path}:latest`
}

/** The images that the manifests of folders name, except those of `ambit.local`, which there are already. */
export function imagesOf(folders: readonly string[]): AppImage[] {
  const commands = new Map<string, readonly string[]>()
  const ports = new Map<string, Set<string>>()
  for (const file of folders.flatMap(filesOf)) {
    const text = readFileSync(file, 'utf8')
    if (file.endsWith(`/${IMAGES_FILE}`)) {
      for (const [image, command] of parseImages(text, file).commands) commands.set(fullName(image) ?? '', command)
      continue
    }
    // A document that does not parse names nothing; kubectl says so when it is applied.
    for (const document of parseAllDocuments(text)) {
      const value: unknown = document.errors.length > 0 ? undefined : document.toJS()
      for (const container of containersOf(value)) {
        const name = typeof container.image === 'string' ? fullName(container.image) : undefined
        if (name === undefined || name.startsWith('ambit.local/')) continue
        const known = ports.get(name) ?? new Set()
        ports.set(name, known)
        for (const { name: called, containerPort, protocol = 'TCP' } of container.ports ?? [])
          if (containerPort !== undefined && protocol === 'TCP')
            known.add(called === undefined ? String(containerPort) : `${called}:${containerPort}`)
      }
    }
  }
  return [...ports]
    .map(([name, list]) => {
      const command = commands.get(name) ?? commands.get(name.replace(/:[^/:]*$/, ':latest'))
      return { name, command, ports: [...list].sort() }
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

function filesOf(path: string): string[] {
  if (!lstatSync(path).isDirectory()) return [path]
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(ya?ml|json)$/.test(name) && !/(^|\/)\./.test(name))
    .map((name) => join(path, name))
    .sort()
}

function containersOf(value: unknown): ContainerLike[] {
  if (typeof value !== 'object' || value === null) return []
  if (Array.isArray(value)) return value.flatMap(containersOf)
  return Object.entries(value).flatMap(([key, inner]) =>
    /^(initC|c)ontainers$/.test(key) && Array.isArray(inner)
      ? inner.filter((one): one is ContainerLike => typeof one === 'object' && one !== null)
      : containersOf(inner),
  )
}

/** Packs them over the layers of our own image. */
export async function packApps(image: Image, ours: Packed, apps: readonly AppImage[]): Promise<Packed[]> {
  const folder = toolsFolder(image)
  const files: string[] = []
  walk(folder, '', (path) => lstatSync(join(folder, path)).isDirectory() || files.push(path))
  const layers = [...ours.layers, await packLayer('tools', folder, files)]
  return apps.map(({ name, command, ports }) => {
    const [, repository = '', tag = ''] = /([^/:]+):([^/:]+)$/.exec(name) ?? []
    return describe(name, layers, {
      // As images of applications mostly are.
      user: '0:0',
      workdir: '/',
      environment: [
        ...image.environment,
        `APP_NAME=${repository}`,
        `APP_VERSION=${tag}`,
        `ECHO_PORTS=${ports.join(',') || 'http:8080'}`,
      ],
      entrypoint: command ?? ['ambit', 'app', 'echo'],
      command: [],
    })
  })
}

/** The files of TOOLS that the image has not: made once for each version of theirs. */
function toolsFolder(image: Image): string {
  const folder = join(WORK, 'tools')
  const stamp = `${folder}.stamp`
  const key = `${image.key} ${packageVersions(TOOLS)}`
  if (existsSync(folder) && existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return folder
  const fresh = `${folder}.new`
  for (const path of [fresh, folder, stamp]) rmSync(path, { recursive: true, force: true })
  mkdirSync(join(fresh, 'etc'), { recursive: true })
  linkFolders(fresh)
  installPackages(fresh, TOOLS)
  const files: string[] = []
  walk(fresh, '', (path) => files.push(path))
  for (const path of files) {
    const there = lstatSync(join(image.root, path), { throwIfNoEntry: false })
    if (there !== undefined && !there.isDirectory()) rmSync(join(fresh, path))
  }
  renameSync(fresh, folder)
  writeFileSync(stamp, key)
  return folder
}
