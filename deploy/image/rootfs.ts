// Builds the image's root file system without a container engine, by the Dockerfile's own steps, below build/image/.
// Debian's base and packages are taken from this machine (debian.ts); the building stages run in a root of their own that
// sees this machine's tools read-only. Must not live here: reading the Dockerfile, packing what was built (archive.ts).
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  cpSync,
  linkSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { debianBase, essentialPackages, installPackages, packageVersions, requirePackages, TOOLS } from './debian.ts'
import { ignoring, parseDockerfile, type Dockerfile, type Stage, type Step } from './dockerfile.ts'

const root = resolve(import.meta.dirname, '../..')
const work = join(root, 'build/image')
/** The stages that build: they get this machine's tools. What is shipped starts from Debian's base. */
const BUILDER = 'node:26-bookworm'
const SLIM = 'debian:bookworm-slim'
/** The built image: its folder and what the Dockerfile says of running it. */
export interface Image extends Omit<Dockerfile, 'stages'> {
  readonly root: string
  /** Bytes of all its files. */
  readonly size: number
  /** Digest of all that went into it. */
  readonly key: string
  /** Its last stage, for whoever wants to know which step a file came by. */
  readonly stage: Stage
}

/** Builds what changed since the last time. `say` hears of each step that is carried out. */
export function buildImage(say: (line: string) => void = () => undefined): Image {
  if (process.getuid?.() !== 0) throw new Error('rootfs.sh needs root: it makes mounts and changes root')
  const { stages, ...rest } = parseDockerfile(readFileSync(join(root, 'Dockerfile'), 'utf8'))
  const built = new Map<string, Built>()
  for (const stage of stages) built.set(stage.name, buildStage(stage, built, say))
  const last = stages.at(-1)
  const done = last === undefined ? undefined : built.get(last.name)
  if (last === undefined || done === undefined) throw new Error('Dockerfile: no stage')
  return { ...rest, root: done.folder, size: sizeOf(done.folder), key: done.key, stage: last }
}

interface Built {
  readonly folder: string
  /** Digest of all that went into it. */
  readonly key: string
  /** Its commands see this machine's tools. */
  readonly tools: boolean
}

function buildStage(stage: Stage, built: ReadonlyMap<string, Built>, say: (line: string) => void): Built {
  const from = built.get(stage.base)
  if (stage.base !== BUILDER && stage.base !== SLIM && from === undefined) {
    throw new Error(`Dockerfile: rootfs.sh knows the bases ${BUILDER} and ${SLIM}, not ${stage.base}`)
  }
  const tools = stage.base === BUILDER || (from?.tools ?? false)
  const folder = join(work, `stage-${stage.name}`)
  const stamp = `${folder}.stamp`
  const ignored = ignoring(readFileSync(join(root, '.dockerignore'), 'utf8'))
  const hash = createHash('sha256')
    .update(stage.base)
    .update(readFileSync(import.meta.filename))
  if (stage.base === SLIM)
    hash.update(packageVersions(essentialPackages())).update(readFileSync(join(import.meta.dirname, 'debian.ts')))
  for (const step of stage.steps) {
    hash.update(`\n${step.text}`)
    if (step.kind === 'packages') hash.update(packageVersions(step.names))
    if (step.kind !== 'copy') continue
    if (step.from !== undefined) hash.update(built.get(step.from)?.key ?? '')
    else
      for (const file of contextFiles(step.sources, ignored))
        hash.update(`\0${file}\0`).update(digest(join(root, file)))
  }
  const key = hash.digest('hex')
  if (existsSync(folder) && existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return { folder, key, tools }

  const started = Date.now()
  const fresh = `${folder}.new`
  rmSync(fresh, { recursive: true, force: true })
  rmSync(stamp, { force: true })
  mkdirSync(fresh, { recursive: true })
  if (from !== undefined) linkTree(from.folder, fresh)
  else if (stage.base === SLIM) debianBase(fresh)
  let workdir = '/'
  for (const step of stage.steps) {
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    say(`${seconds} s: ${stage.name}: ${step.text}`)
    if (step.kind === 'workdir') {
      workdir = step.path
      mkdirSync(join(fresh, workdir), { recursive: true })
    } else if (step.kind === 'packages') {
      if (tools) requirePackages(step.names, `Dockerfile:${step.line}`)
      else installPackages(fresh, step.names)
    } else if (step.kind === 'run') {
      enter(fresh, tools, workdir, ['sh', '-ec', step.command], `Dockerfile:${step.line}`)
    } else copy(fresh, workdir, step, built, ignored)
  }
  rmSync(folder, { recursive: true, force: true })
  renameSync(fresh, folder)
  writeFileSync(stamp, key)
  return { folder, key, tools }
}

/**
 * A stage made from another: big files are shared by hard links, small ones copied. Steps that write into a big file of
 * an earlier stage in place would change that stage too; removing and replacing is safe, and ours do no more.
 */
function linkTree(from: string, to: string): void {
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) {
      mkdirSync(target, { recursive: true })
      linkTree(source, target)
    } else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(source), target)
    else if (lstatSync(source).size > 65_536) linkSync(source, target)
    else copyFileSync(source, target)
  }
}

/** COPY as the engine does it: several sources or a trailing slash mean a folder; a folder's content is copied. */
function copy(
  target: string,
  workdir: string,
  step: Extract<Step, { kind: 'copy' }>,
  built: ReadonlyMap<string, { folder: string }>,
  ignored: (path: string) => boolean,
): void {
  const from = step.from === undefined ? root : built.get(step.from)?.folder
  if (from === undefined) throw new Error(`Dockerfile:${step.line}: there is no stage ${step.from}`)
  const sources = step.sources.flatMap((source) => globSync(source.replace(/^\//, ''), { cwd: from }))
  if (sources.length === 0) throw new Error(`Dockerfile:${step.line}: nothing to copy: ${step.text}`)
  const to = join(target, resolve(workdir, step.to))
  const intoFolder = step.to.endsWith('/') || step.sources.length > 1
  for (const source of sources.sort()) {
    const full = join(from, source)
    const destination = intoFolder && !lstatSync(full).isDirectory() ? join(to, basename(source)) : to
    mkdirSync(dirname(destination), { recursive: true })
    if (step.from !== undefined && lstatSync(full).isDirectory()) {
      mkdirSync(destination, { recursive: true })
      linkTree(full, destination)
      continue
    }
    const filter = (path: string): boolean => step.from !== undefined || !ignored(relative(root, path))
    cpSync(full, destination, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true, filter })
  }
}

function contextFiles(sources: readonly string[], ignored: (path: string) => boolean): string[] {
  return sources
    .flatMap((source) => globSync(source, { cwd: root }))
    .flatMap((path) =>
      lstatSync(join(root, path)).isDirectory()
        ? readdirSync(join(root, path), { recursive: true, withFileTypes: true })
            .filter((entry) => !entry.isDirectory())
            .map((entry) => relative(root, join(entry.parentPath, entry.name)))
        : [path],
    )
    .filter((path) => !ignored(path))
    .sort()
}

/** Runs a command inside a root. With `tools` it sees this machine's tools and npm settings; mounts end with it. */
function enter(target: string, tools: boolean, workdir: string, command: readonly string[], what: string): void {
  const home = process.env['HOME'] ?? '/root'
  const lines = ['set -e', 'mount --make-rprivate /', `cd ${quote(target)}`]
  for (const name of ['proc', 'dev', 'tmp', 'root']) mkdirSync(join(target, name), { recursive: true })
  lines.push('mount -t proc proc proc', 'mount --rbind /dev dev', 'mount -t tmpfs tmpfs tmp')
  if (tools) {
    for (const name of TOOLS) {
      const found = lstatSync(`/${name}`, { throwIfNoEntry: false })
      if (found === undefined) continue
      if (found.isSymbolicLink()) {
        if (lstatSync(join(target, name), { throwIfNoEntry: false }) === undefined)
          symlinkSync(readlinkSync(`/${name}`), join(target, name))
      } else {
        mkdirSync(join(target, name), { recursive: true })
        lines.push(`mount --bind /${name} ${name}`, `mount -o remount,bind,ro ${name}`)
      }
    }
    // npm's settings and cache, so that the registry is the one this machine uses.
    lines.push('mount -t tmpfs tmpfs root')
    if (existsSync(join(home, '.npmrc'))) lines.push(`cp ${quote(join(home, '.npmrc'))} root/.npmrc`)
    if (existsSync(join(home, '.npm')))
      lines.push('mkdir root/.npm', `mount --bind ${quote(join(home, '.npm'))} root/.npm`)
  }
  lines.push(`exec chroot . sh -ec ${quote(`cd ${quote(workdir)} && exec "$@"`)} sh "$@"`)
  const env = { ...process.env, HOME: '/root' }
  const done = spawnSync('unshare', ['--mount', 'sh', '-c', lines.join('\n'), 'sh', ...command], {
    env,
    encoding: 'utf8',
    timeout: 300_000,
    maxBuffer: 64 << 20,
  })
  if (done.status !== 0)
    throw new Error(`${what} failed (${done.status ?? done.signal}):\n${done.stdout}${done.stderr}`)
}

/** The command line that runs the image as an engine would: its user, folder and entry, with /proc, /dev and /sys. */
export function runCommand(image: Image, args: readonly string[], options: { user?: string } = {}): string[] {
  const script = [
    'set -e',
    'mount --make-rprivate /',
    `cd ${quote(image.root)}`,
    'mount -t proc proc proc && mount --rbind /dev dev && mount --rbind /sys sys && mount -t tmpfs tmpfs tmp',
    `exec chroot --userspec=${options.user ?? image.user} . sh -c ${quote(`cd ${quote(image.workdir)} && exec "$@"`)} sh "$@"`,
  ].join('\n')
  const command = args.length > 0 ? args : image.command
  return ['unshare', '--mount', 'sh', '-c', script, 'sh', ...image.entrypoint, ...command]
}

function digest(path: string): Buffer {
  const found = lstatSync(path)
  const content = found.isSymbolicLink() ? readlinkSync(path) : readFileSync(path)
  return createHash('sha256').update(String(found.mode)).update(content).digest()
}

/** Bytes of a folder's files. Links are not followed: absolute ones would lead out of the image. */
function sizeOf(folder: string): number {
  let total = 0
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) total += sizeOf(path)
    else if (entry.isFile()) total += lstatSync(path).size
  }
  return total
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

if (import.meta.main) {
  const image = buildImage((line) => process.stderr.write(`rootfs: ${line}\n`))
  const at = process.argv.indexOf('--run')
  if (at < 0) {
    process.stdout.write(`${image.root} (${Math.round(image.size / 1e6)} MB)\n`)
  } else {
    const [command = '', ...args] = runCommand(image, process.argv.slice(at + 1))
    process.exitCode = spawnSync(command, args, { stdio: 'inherit', env: { PATH: process.env['PATH'] } }).status ?? 1
  }
}
