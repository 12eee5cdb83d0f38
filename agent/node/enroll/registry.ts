// The pods somebody told this agent about, on disk, so that an agent that comes back knows them without being told again.
// Must not live here: whether they are captured.
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { canonicalIp } from '../../base/ip.ts'
import type { Logger } from '../../base/log.ts'
import type { RegisteredPod } from './contract.ts'

/** As many as the kernel's table of pods holds (bpf/lib/pods.h). */
export const MAX_PODS = 4096
const MAX_ADDRESSES = 16
/** Ids of containers, as the specification of CNI has them (CNI_CONTAINERID). */
const SANDBOX = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,255}$/
const UID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/
/** Names of Kubernetes objects: DNS subdomains (RFC 1123). */
const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/
const MAX_PATH = 4095

interface Entry {
  readonly pod: RegisteredPod
  /** Device and inode of the namespace: a path below /proc can come to mean another one. */
  readonly netnsId: string
}

/** Checks what came from outside; throws ENROLL_BAD_REQUEST naming the field. Addresses come out in canonical form. */
export function parsePod(value: unknown): RegisteredPod {
  const from = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  const text = (field: string, fits: (text: string) => boolean, want: string): string => {
    const found = from[field]
    if (typeof found === 'string' && fits(found)) return found
    throw new AmbitError('ENROLL_BAD_REQUEST', `'${field}' must be ${want}.`)
  }
  const uid = text('uid', (t) => UID.test(t), 'letters, digits, - and _, at most 128')
  const namespace = text('namespace', (t) => NAME.test(t), 'the name of a namespace')
  const name = text('name', (t) => NAME.test(t), 'the name of a pod')
  const netns = text(
    'netns',
    (t) => t.startsWith('/') && t.length <= MAX_PATH && !t.includes('\0'),
    'the absolute path of a network namespace',
  )
  const list = from['addresses']
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_ADDRESSES) {
    throw new AmbitError('ENROLL_BAD_REQUEST', `'addresses' must be a list of 1 to ${MAX_ADDRESSES} IP addresses.`)
  }
  const addresses = list.map((entry: unknown, i) => {
    const canonical = typeof entry === 'string' ? canonicalIp(entry) : undefined
    if (canonical === undefined) throw new AmbitError('ENROLL_BAD_REQUEST', `'addresses[${i}]' must be an IP address.`)
    return canonical
  })
  const pod = { uid, namespace, name, netns, addresses }
  if (from['sandbox'] === undefined) return pod
  return { ...pod, sandbox: text('sandbox', (t) => SANDBOX.test(t), 'the id of a container') }
}

/**
 * The same file as this process sees it: runtimes say /var/run, which on a node is a link to /run, and in a container may be a folder
 * of its own. Unchanged where nothing is there either.
 */
export function pathHere(netns: string): string {
  const other = netns.startsWith('/var/run/') ? netns.slice('/var'.length) : netns
  return other !== netns && netnsIdOf(netns) === undefined && netnsIdOf(other) !== undefined ? other : netns
}

/** Device and inode of a network namespace, or undefined if there is nothing at the path. */
export function netnsIdOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return undefined
  }
}

export class Registry {
  readonly #file: string
  readonly #entries = new Map<string, Entry>()
  readonly #pods = new Map<string, RegisteredPod>()

  /** Reads what is there. A file that makes no sense is set aside and said so: its pods stay closed until told again. */
  constructor(stateDir: string, log: Logger) {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 })
    this.#file = `${stateDir}/pods.json`
    let text: string
    try {
      text = readFileSync(this.#file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw new AmbitError('ENROLL_REGISTRY', `The registry ${this.#file} cannot be read: ${messageOf(error)}.`)
    }
    try {
      const { pods } = JSON.parse(text) as { pods: { netnsId?: unknown }[] }
      for (const saved of pods) this.#keep({ pod: parsePod(saved), netnsId: String(saved.netnsId) })
    } catch (error) {
      this.#entries.clear()
      this.#pods.clear()
      renameSync(this.#file, `${this.#file}.bad`)
      log.error({ file: this.#file, error: messageOf(error) }, 'the registry of pods is damaged, set aside as .bad')
    }
  }

  /** Registered pods by uid. */
  get pods(): ReadonlyMap<string, RegisteredPod> {
    return this.#pods
  }

  /** True while the pod's namespace is the one it was registered with. */
  alive(pod: RegisteredPod): boolean {
    return netnsIdOf(pod.netns) === this.#entries.get(pod.uid)?.netnsId
  }

  /** True if the pod is registered with the namespace that `pod` names, by whatever path. */
  hasNamespaceOf(pod: RegisteredPod): boolean {
    const known = this.#entries.get(pod.uid)
    return known !== undefined && known.netnsId === netnsIdOf(pod.netns)
  }

  /** Adds or replaces. On disk when this returns. Throws ENROLL_NO_NAMESPACE, ENROLL_FULL, ENROLL_REGISTRY. */
  add(pod: RegisteredPod): void {
    const netnsId = netnsIdOf(pod.netns)
    if (netnsId === undefined) {
      throw new AmbitError('ENROLL_NO_NAMESPACE', `There is no network namespace at ${pod.netns}.`)
    }
    if (!this.#pods.has(pod.uid) && this.#pods.size >= MAX_PODS) {
      throw new AmbitError('ENROLL_FULL', `${MAX_PODS} pods are registered on this node already.`)
    }
    const before = this.#entries.get(pod.uid)
    this.#keep({ pod, netnsId })
    try {
      this.#save()
    } catch (error) {
      if (before) this.#keep(before)
      else this.#drop(pod.uid)
      throw error
    }
  }

  /** False if it was not there. */
  remove(uid: string): boolean {
    if (!this.#drop(uid)) return false
    this.#save()
    return true
  }

  #keep(entry: Entry): void {
    this.#entries.set(entry.pod.uid, entry)
    this.#pods.set(entry.pod.uid, entry.pod)
  }

  #drop(uid: string): boolean {
    this.#entries.delete(uid)
    return this.#pods.delete(uid)
  }

  /** Whole or not at all, whatever happens meanwhile. */
  #save(): void {
    const pods = [...this.#entries.values()].map(({ pod, netnsId }) => ({ ...pod, netnsId }))
    const temporary = `${this.#file}.new`
    try {
      const fd = openSync(temporary, 'w', 0o600)
      try {
        writeSync(fd, `${JSON.stringify({ version: 1, pods }, undefined, 1)}\n`)
        fsyncSync(fd)
      } finally {
        closeSync(fd)
      }
      renameSync(temporary, this.#file)
    } catch (error) {
      throw new AmbitError('ENROLL_REGISTRY', `The registry ${this.#file} cannot be written: ${messageOf(error)}.`)
    }
  }
}
