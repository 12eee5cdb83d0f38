// The Debian half of building an image without a container engine: a slim base and packages, from the files of this machine's
// installed packages (no scripts run). Must not live here: the Dockerfile's steps (rootfs.ts).
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  type Stats,
} from 'node:fs'
import { join } from 'node:path'

/** What a slim base leaves out of every package. */
const UNSHIPPED = /^\/usr\/share\/(doc|man|info|locale|lintian|bug|groff)\//
/** Folders of a machine's root that hold its programs; some are links. */
export const TOOLS = ['usr', 'etc', 'opt', 'bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32']

/** Names of the packages that every Debian has. */
export function essentialPackages(): string[] {
  return output('dpkg-query', ['-W', '-f', '${Package} ${Essential}\n'])
    .split('\n')
    .filter((line) => line.endsWith(' yes'))
    .map((line) => line.split(' ')[0] ?? '')
}

/** Debian's own minimum: the essential packages with all they need, accounts, the loader's cache. */
export function debianBase(target: string): void {
  linkFolders(target)
  for (const name of ['proc', 'sys', 'dev', 'tmp', 'run', 'root', 'etc'])
    mkdirSync(join(target, name), { recursive: true })
  installPackages(target, essentialPackages())
  for (const name of ['passwd', 'group']) {
    // Written by base-passwd's script when it is installed, which does not run here.
    const master = `/usr/share/base-passwd/${name}.master`
    if (existsSync(master)) cpSync(master, join(target, 'etc', name))
  }
}

/** The links of a root's folders (`/bin` to `usr/bin`), as they are on this machine. */
export function linkFolders(target: string): void {
  for (const name of TOOLS) {
    const link = lstatSync(`/${name}`, { throwIfNoEntry: false })
    if (link?.isSymbolicLink() === true) {
      const to = readlinkSync(`/${name}`)
      mkdirSync(join(target, to), { recursive: true })
      symlinkSync(to, join(target, name))
    }
  }
}

/** The files of packages and of everything they depend on, from this machine. */
export function installPackages(target: string, names: readonly string[]): void {
  const files = closure(names)
    .flatMap((name) => output('dpkg', ['-L', name]).split('\n'))
    .filter((path) => path.startsWith('/') && path !== '/.' && !UNSHIPPED.test(path))
  const present: string[] = []
  const folders: [string, Stats][] = []
  for (const path of new Set(files)) {
    const found = lstatSync(path, { throwIfNoEntry: false })
    if (found?.isDirectory() === true) folders.push([path, found])
    else if (found !== undefined) present.push(path)
  }
  // Paths below /bin, /lib … must follow the links of the target, so folders are not archived, only files.
  for (const [path, { mode, uid, gid }] of folders) {
    const folder = join(target, path)
    mkdirSync(folder, { recursive: true })
    chownSync(folder, uid, gid)
    chmodSync(folder, mode & 0o7777)
  }
  const list = present.map((path) => path.slice(1)).join('\0')
  const archive = ['-C', '/', '--null', '--no-recursion', '-T', '-', '-cf', '-']
  const packed = spawnSync('tar', archive, { input: list, maxBuffer: 1 << 30 })
  if (packed.status !== 0) throw new Error(`tar: ${packed.stderr.toString()}`)
  const unpacked = spawnSync('tar', ['-C', target, '--keep-directory-symlink', '-xpf', '-'], { input: packed.stdout })
  if (unpacked.status !== 0) throw new Error(`tar: ${unpacked.stderr.toString()}`)
  output('ldconfig', ['-r', target])
  // It holds inode numbers, and only spares the next ldconfig some work.
  rmSync(join(target, 'var/cache/ldconfig'), { recursive: true, force: true })
}

/** Packages with all their dependencies, as installed here. */
function closure(names: readonly string[]): string[] {
  const all = new Map<string, string[]>()
  const provided = new Map<string, string>()
  const format = '${binary:Package}|${Package}|${Pre-Depends},${Depends}|${Provides}\n'
  for (const line of output('dpkg-query', ['-W', '-f', format]).split('\n')) {
    const [, name, depends = '', provides = ''] = line.split('|').length > 4 ? splitLine(line) : line.split('|')
    if (name === undefined || name === '') continue
    all.set(
      name,
      depends
        .split(',')
        .map((entry) => entry.trim())
        .filter((entry) => entry !== ''),
    )
    for (const entry of provides.split(',')) provided.set(bare(entry), name)
  }
  const out = new Set<string>()
  const visit = (name: string): void => {
    if (out.has(name)) return
    const depends = all.get(name)
    if (depends === undefined) {
      throw new Error(`The Debian package ${name} is not installed here. Try: apt-get install ${name}`)
    }
    out.add(name)
    for (const entry of depends) {
      const found = entry
        .split('|')
        .map(bare)
        .find((choice) => all.has(choice) || provided.has(choice))
      if (found !== undefined) visit(all.has(found) ? found : (provided.get(found) ?? found))
    }
  }
  for (const name of names) visit(name)
  return [...out].sort()
}

/** A line whose dependencies have alternatives (`a | b`): the first two and the last field are free of bars. */
function splitLine(line: string): string[] {
  const parts = line.split('|')
  return [parts[0] ?? '', parts[1] ?? '', parts.slice(2, -1).join('|'), parts.at(-1) ?? '']
}

function bare(entry: string): string {
  return entry.trim().replace(/[ :(].*$/, '')
}

/** Throws an Error naming `where` (`Dockerfile:7`) and those that are not installed here. */
export function requirePackages(names: readonly string[], where: string): void {
  const missing = names.filter((name) => spawnSync('dpkg-query', ['-W', name]).status !== 0)
  if (missing.length > 0) throw new Error(`${where}: not installed here: try apt-get install ${missing.join(' ')}`)
}

/** Of packages with everything they depend on: what their files depend on. */
export function packageVersions(names: readonly string[]): string {
  return output('dpkg-query', ['-W', ...closure(names)])
}

/** Runs a program to its end; returns what it printed. */
export function output(command: string, args: readonly string[]): string {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${done.stderr}`)
  return done.stdout
}
