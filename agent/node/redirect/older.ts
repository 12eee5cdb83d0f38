// What agents of other schemas left pinned, and how it gives way pod by pod: until this agent's programs are on a pod, the
// others' are; for a moment both. So nothing is open and nothing is cut off on the way, and an agent of the older version may
// drain beside this one. It works on what all schemas share, so the way back to an older version is the same. Must not live
// here: this agent's own pins (programs.ts, pods.ts).
//
// What all schemas share, and what therefore must stay: the folders `v<schema>` of the node; in them `links/` (on the node's
// cgroup), other folders whose pins begin with `<cookie>-` and are links of that namespace, of which `pods/<cookie>-<uid>` tells
// the uid; and the maps `ambit_pods` and `ambit_agents`, whose keys are the cookie and the cgroup's id, and `ambit_flows`, whose
// keys begin with the cookie for what was captured.
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { BpfError, codec, openPinnedBytes, openPinnedMap, type BpfMap } from '../../../native/bpf/index.ts'
import { Socket } from '../../../native/bpf/gen/connect.ts'
import { formatIp } from '../../base/ip.ts'
import type { Captured } from './contract.ts'
import { noteKinds, originalDestinationOf } from './notes.ts'
import { parsePin } from './pods.ts'
import { SCHEMA, namesIn, otherSchemas, pinFolder, removeLink, removeSchema } from './schema.ts'

type RawMap = BpfMap<Uint8Array, Uint8Array>

/** Reads what programs of a schema noted on a captured socket. */
interface NoteReader {
  read(fd: number): Captured | undefined
  close(): void
}

/** Handshakes that began under the others' programs have so long to end; they take some 50 µs. */
const HANDSHAKES_MS = 200
const LOOK_MS = 5
/** An agent that drains beside this one still needs its programs on the node's cgroup, for peers' addresses. */
export const LINGER_MS = 60_000

/** The pins of one other schema. */
export class OlderPins {
  readonly schema: number
  readonly #root: string
  readonly #lingerMs: number
  readonly #folder: string
  readonly #ownFolder: string
  readonly #pods: RawMap | undefined
  readonly #flows: RawMap | undefined
  readonly #notes: NoteReader | undefined
  #lingering: NodeJS.Timeout | undefined

  constructor(root: string, own: number, schema: number, lingerMs: number) {
    this.#ownFolder = pinFolder(root, own)
    this.#lingerMs = lingerMs
    this.schema = schema
    this.#root = root
    this.#folder = pinFolder(root, schema)
    this.#pods = openRaw(`${this.#folder}/ambit_pods`)
    this.#flows = openRaw(`${this.#folder}/ambit_flows`)
    this.#notes = notesOf(schema, `${this.#folder}/ambit_notes`)
  }

  /** Cgroup ids that its agents exempted. */
  agents(): bigint[] {
    const map = openRaw(`${this.#folder}/ambit_agents`)
    if (!map) return []
    const ids = [...map.keys()].map((key) => Buffer.from(key).readBigUInt64LE(0))
    map.close()
    return ids
  }

  /** Its programs must not capture this agent either. */
  exempt(ids: readonly bigint[]): void {
    const map = openRaw(`${this.#folder}/ambit_agents`)
    for (const id of ids) map?.set(keyOf(id), new Uint8Array(map.shape.valueSize).fill(1, 0, 1))
    map?.close()
  }

  /** Uids and namespaces that are still its. */
  pods(): { uid: string; cookie: bigint }[] {
    return namesIn(`${this.#folder}/pods`).flatMap((name) => parsePin(name) ?? [])
  }

  /** Where a connection wanted to go that was captured by its programs. Throws BpfError for what is no socket. */
  originalDestination(fd: number): Captured | undefined {
    return this.#notes?.read(fd)
  }

  /** True if what its programs noted can be read. */
  get readable(): boolean {
    return this.#notes !== undefined
  }

  /**
   * Lets go of a namespace on which this agent's own programs are by now (or none shall be): what dials there from now on is
   * captured by them, so the handshakes of the others are soon over.
   */
  async release(cookie: bigint): Promise<void> {
    const until = performance.now() + HANDSHAKES_MS
    while (this.#hasFlows(cookie) && performance.now() < until) await new Promise((go) => setTimeout(go, LOOK_MS))
    // Without an entry its connect programs pass, its lookup refuses: so that goes in the same moment.
    this.#pods?.delete(keyOf(cookie))
    for (const folder of readdirSync(this.#folder, { withFileTypes: true })) {
      if (!folder.isDirectory() || folder.name === 'links') continue
      for (const name of namesIn(`${this.#folder}/${folder.name}`)) {
        if (name.startsWith(`${cookie}-`)) removeLink(`${this.#folder}/${folder.name}/${name}`)
      }
    }
  }

  /**
   * Once no pod is left, and after a while in which an agent of that schema may drain, removes everything; `done` is told
   * then.
   */
  finish(done: (problem?: unknown) => void): void {
    if (this.#lingering || this.pods().length > 0) return
    this.#lingering = setTimeout(() => void this.remove().then(() => done(), done), this.#lingerMs).unref()
  }

  /**
   * Removes everything now, but for the programs that answer getpeername(): connections that began under them outlive them,
   * and their apps are to see the same peers as before. Those go with the schema of this agent.
   */
  async remove(): Promise<void> {
    this.close()
    const kept = `${this.#ownFolder}/older`
    for (const name of namesIn(`${this.#folder}/links`)) {
      if (!name.startsWith('ambit_peername')) continue
      mkdirSync(kept, { recursive: true, mode: 0o700 })
      rmSync(`${kept}/v${this.schema}-${name}`, { force: true })
      renameSync(`${this.#folder}/links/${name}`, `${kept}/v${this.schema}-${name}`)
    }
    await removeSchema(this.#root, this.schema)
  }

  /** Closes this process's handles. */
  close(): void {
    clearTimeout(this.#lingering)
    this.#pods?.close()
    this.#flows?.close()
    this.#notes?.close()
  }

  #hasFlows(cookie: bigint): boolean {
    for (const key of this.#flows?.keys() ?? []) if (Buffer.from(key).readBigUInt64LE(0) === cookie) return true
    return false
  }
}

/** Those of all other schemas that have pins. Throws BpfError, REDIRECT_PIN_ROOT. */
export function olderPins(root: string, own: number, lingerMs = LINGER_MS): OlderPins[] {
  return otherSchemas(root, own).map((schema) => new OlderPins(root, own, schema, lingerMs))
}

function openRaw(path: string): RawMap | undefined {
  try {
    return openPinnedBytes(path)
  } catch (error) {
    if (error instanceof BpfError && error.code === 'ENOENT') return undefined
    throw error
  }
}

function keyOf(id: bigint): Uint8Array {
  const key = Buffer.alloc(8)
  key.writeBigUInt64LE(id)
  return key
}

/** Schema 1: address, port, kind, padding. */
const FIRST_NOTE = codec.bytes(24)

/**
 * Undefined for a schema whose notes this version does not know. When SCHEMA counts up because struct socket changes, its
 * form until then is to be kept here, as that of schema 1 is.
 */
function notesOf(schema: number, path: string): NoteReader | undefined {
  try {
    if (schema === 1) return firstNotes(openPinnedMap(path, codec.i32, FIRST_NOTE))
    if (schema > SCHEMA) return undefined
    const map = openPinnedMap(path, codec.i32, Socket)
    return {
      read(fd) {
        const socket = map.get(fd)
        return socket && originalDestinationOf(socket)
      },
      close: () => map.close(),
    }
  } catch (error) {
    if (error instanceof BpfError && ['ENOENT', 'LAYOUT'].includes(error.code)) return undefined
    throw error
  }
}

function firstNotes(map: BpfMap<number, Uint8Array>): NoteReader {
  return {
    read(fd) {
      const note = map.get(fd)
      if (!note) return undefined
      const view = Buffer.from(note.buffer, note.byteOffset, note.byteLength)
      if (view.readUInt16LE(18) !== noteKinds.captured) return undefined
      return { address: formatIp(note.subarray(0, 16)), port: view.readUInt16LE(16) }
    },
    close: () => map.close(),
  }
}
