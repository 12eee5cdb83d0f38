// From an object file to programs and maps in the kernel: open, configure, load. Must not live here: attaching
// (program.ts), reading maps (map.ts), and which objects there are.
import { basename } from 'node:path'
import { mkdirSync } from 'node:fs'
import { native, type NativeMap, type NativeObject } from './addon.ts'
import { readBtf, type Btf } from './btf.ts'
import type { Codec } from './codec.ts'
import { codecOf } from './dynamic.ts'
import { BpfError, VerifierError, check, failure } from './errors.ts'
import { mapTypes, programTypes } from './kinds.ts'
import { MapHandle, type MapShape } from './keyed.ts'
import { BpfMap, LpmMap, PerCpuMap, SocketMap, type MapSchema } from './map.ts'
import { MapOfMaps } from './nested.ts'
import { Program } from './program.ts'
import { RingMap } from './ring.ts'

/** What generated code (npm run gen) says of an object file. */
export interface ObjectSchema {
  readonly name: string
  readonly programs: readonly string[]
  readonly maps: Readonly<Record<string, MapSchema>>
  /** `const volatile` variables. */
  readonly rodata: Readonly<Record<string, Codec<unknown>>>
  /** Struct name → size and member offsets, held against the file's BTF when it is opened. */
  readonly layout: Readonly<
    Record<string, { readonly size: number; readonly members: Readonly<Record<string, number>> }>
  >
}

type PerCpuKind = 'percpu_hash' | 'percpu_array' | 'lru_percpu_hash'

/** The class that fits a map's schema. */
export type MapFor<S> = S extends { readonly kind: 'ringbuf' }
  ? RingMap
  : S extends { readonly kind: PerCpuKind; readonly key: Codec<infer K>; readonly value: Codec<infer V> }
    ? PerCpuMap<K, V>
    : S extends { readonly kind: 'sockmap' | 'sockhash'; readonly key: Codec<infer K> }
      ? SocketMap<K>
      : S extends { readonly inner: { readonly key: Codec<infer IK>; readonly value: Codec<infer IV> } }
        ? MapOfMaps<S extends { readonly key: Codec<infer K> } ? K : never, IK, IV>
        : S extends { readonly kind: 'lpm_trie'; readonly key: Codec<infer K>; readonly value: Codec<infer V> }
          ? LpmMap<K, V>
          : S extends { readonly key: Codec<infer K>; readonly value: Codec<infer V> }
            ? BpfMap<K, V>
            : MapHandle

type Rodata<S extends ObjectSchema> = {
  -readonly [K in keyof S['rodata']]: S['rodata'][K] extends Codec<infer T> ? T : never
}

/** A map before load. */
export interface MapConfig {
  readonly shape: MapShape
  /** The definition asks to be pinned by its name (`__uint(pinning, LIBBPF_PIN_BY_NAME)`). */
  readonly pinned: boolean
  /** Number of entries, settable. For a ring buffer its bytes, a power of two of whole pages. */
  maxEntries: number
  /** Uses an existing map instead of creating one; its shape must be the same (BPF_MAP reuse, EINVAL). */
  reuse(map: MapHandle): void
}

/** A program before load. */
export interface ProgramConfig {
  readonly section: string
  /** False leaves the program out, for what the kernel lacks. */
  autoload: boolean
}

export interface LoadOptions {
  /** Folder on a bpffs (made if absent). Maps that ask to be pinned are adopted from or pinned to `<pinRoot>/<name>`. Without it nothing is pinned. */
  readonly pinRoot?: string
  /** 1 or 2 keeps the verifier's log of programs that pass in `module.log`; default 0. */
  readonly logLevel?: 0 | 1 | 2
}

/** An object file that was read but is not yet in the kernel. */
export class BpfObject<S extends ObjectSchema = ObjectSchema> {
  readonly path: string
  readonly btf: Btf
  /** Constants of the programs, set before load: `obj.rodata.limit = 5`. Types are the C types; a wrong name throws. */
  readonly rodata: Rodata<S>
  readonly maps: { readonly [K in keyof S['maps']]: MapConfig }
  readonly programs: { readonly [K in S['programs'][number]]: ProgramConfig }
  readonly #schema: S | undefined
  readonly #handle: NativeObject
  readonly #native: readonly NativeMap[]
  #open = true

  constructor(path: string, schema: S | undefined) {
    this.path = path
    this.btf = readBtf(path)
    if (schema !== undefined) assertLayout(this.btf, schema, path)
    const opened = native().openObject(path)
    if (opened.object === undefined) {
      throw new BpfError(
        failure(-opened.result, '', '').code,
        -opened.result,
        'bpf_object__open',
        `Opening ${path} failed: ${lastLines(opened.log)}`,
      )
    }
    this.#schema = schema
    this.#handle = opened.object
    this.#native = this.#handle.maps()
    this.maps = this.#mapConfigs() as typeof this.maps
    this.programs = this.#programConfigs() as typeof this.programs
    this.rodata = this.#rodata() as Rodata<S>
  }

  /**
   * Verifies and loads on a worker thread; the event loop goes on. The object is used up, whether it succeeds or not.
   * Throws VerifierError with the log, or BpfError (PIN_MISMATCH: a pinned map has another shape).
   */
  async load(options: LoadOptions = {}): Promise<BpfModule<S>> {
    if (!this.#open) throw new BpfError('CLOSED', 0, '', `${this.path} was already loaded or closed`)
    this.#open = false
    if (options.pinRoot !== undefined) mkdirSync(options.pinRoot, { recursive: true, mode: 0o700 })
    this.#native.forEach((map, index) => {
      if (map.pinPath === '') return
      const path = options.pinRoot === undefined ? null : `${options.pinRoot}/${map.name}`
      check(this.#handle.setPinPath(index, path), 'bpf_map__set_pin_path', `Setting the pin of map ${map.name}`)
    })
    const { result, log } = await this.#handle.load(options.logLevel ?? 0)
    if (result < 0) {
      this.#handle.close()
      throw loadError(-result, log, this.path)
    }
    return new BpfModule(this.path, this.#schema, this.#handle, log, this.#native)
  }

  /** Gives the object up without loading it. Idempotent. */
  close(): void {
    if (this.#open) this.#handle.close()
    this.#open = false
  }

  #mapConfigs(): Record<string, MapConfig> {
    const out: Record<string, MapConfig> = {}
    this.#native.forEach((map, index) => {
      if (map.internal) return
      const handle = this.#handle
      let entries = map.maxEntries
      out[map.name] = {
        shape: shapeOf(map),
        pinned: map.pinPath !== '',
        get maxEntries() {
          return entries
        },
        set maxEntries(value: number) {
          check(handle.setMaxEntries(index, value), 'bpf_map__set_max_entries', `Sizing map ${map.name} to ${value}`)
          entries = value
        },
        reuse(other: MapHandle) {
          check(handle.reuse(index, other.fd), 'bpf_map__reuse_fd', `Reusing ${other.shape.name} as map ${map.name}`)
        },
      }
    })
    return strict(out, `${this.path} has no map`)
  }

  #programConfigs(): Record<string, ProgramConfig> {
    const out: Record<string, ProgramConfig> = {}
    this.#handle.programs().forEach((program, index) => {
      const handle = this.#handle
      let on = program.autoload
      out[program.name] = {
        section: program.section,
        get autoload() {
          return on
        },
        set autoload(value: boolean) {
          check(handle.setAutoload(index, value), 'bpf_program__set_autoload', `Configuring program ${program.name}`)
          on = value
        },
      }
    })
    return strict(out, `${this.path} has no program`)
  }

  #rodata(): object {
    const out = {}
    const index = this.#native.findIndex((map) => map.internal && map.name.endsWith('.rodata'))
    for (const variable of this.btf.variables) {
      if (variable.section !== '.rodata' || index < 0) continue
      const codec = codecOf(this.btf, variable.type)
      const bytes = (): Uint8Array => this.#handle.initial(index) ?? new Uint8Array(0)
      Object.defineProperty(out, variable.name, {
        enumerable: true,
        get: () => codec.read(viewOf(bytes()), variable.offset),
        set: (value: unknown) => {
          if (!this.#open) throw new BpfError('CLOSED', 0, '', `${variable.name} can only be set before load`)
          const all = bytes()
          all.fill(0, variable.offset, variable.offset + variable.size)
          codec.write(viewOf(all), variable.offset, value)
          check(this.#handle.setInitial(index, all), 'bpf_map__set_initial_value', `Setting ${variable.name}`)
        },
      })
    }
    return strict(out, `${this.path} has no constant`)
  }
}

/** Programs and maps in the kernel. They live until close(), longer where pinned or linked. */
export class BpfModule<S extends ObjectSchema = ObjectSchema> {
  readonly path: string
  readonly programs: { readonly [K in S['programs'][number]]: Program }
  readonly maps: { readonly [K in keyof S['maps']]: MapFor<S['maps'][K]> }
  /** The verifier's words on programs that passed, if logLevel asked for them. */
  readonly log: string
  readonly #handle: NativeObject
  readonly #shapes = new Map<string, { fd: number; shape: MapShape }>()
  #closed = false

  constructor(path: string, schema: S | undefined, handle: NativeObject, log: string, defined: readonly NativeMap[]) {
    this.path = path
    this.log = log
    this.#handle = handle
    const programs: Record<string, Program> = {}
    handle.programs().forEach((program, index) => {
      const fd = handle.programFd(index)
      if (fd < 0) return // not loaded: autoload was off
      const type = programTypes[program.type] ?? 'unspec'
      programs[program.name] = new Program(fd, program.name, type, program.attachType, this)
    })
    const maps: Record<string, MapHandle> = {}
    handle.maps().forEach((map, index) => {
      const fd = handle.mapFd(index)
      if (fd < 0) return
      this.#shapes.set(map.name, { fd, shape: shapeOf(map) })
      const described = schema?.maps[map.name]
      if (described !== undefined) maps[map.name] = this.#typed(fd, shapeOf(map), described, defined[index]?.inner)
      else if (shapeOf(map).type === 'ringbuf') maps[map.name] = new RingMap(fd, shapeOf(map), this)
    })
    this.programs = strict(programs, `${path} has no loaded program`) as typeof this.programs
    this.maps = strict(maps, `${path} has no described map`) as typeof this.maps
  }

  /** A map by name with codecs of the caller's, for objects without a schema. */
  map<K, V>(name: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
    const { fd, shape } = this.#find(name)
    return new BpfMap(fd, shape, key, value, this)
  }

  /** The same for per-CPU maps. */
  perCpuMap<K, V>(name: string, key: Codec<K>, value: Codec<V>): PerCpuMap<K, V> {
    const { fd, shape } = this.#find(name)
    return new PerCpuMap(fd, shape, key, value, this)
  }

  /** The same for SOCKMAP and SOCKHASH. */
  socketMap<K>(name: string, key: Codec<K>): SocketMap<K> {
    const { fd, shape } = this.#find(name)
    return new SocketMap(fd, shape, key, this)
  }

  /** True after close(): programs and maps of this module refuse to be used. */
  get closed(): boolean {
    return this.#closed
  }

  /** Closes programs and maps; what is pinned or linked stays in the kernel. Idempotent. */
  close(): void {
    this.#closed = true
    this.#handle.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #find(name: string): { fd: number; shape: MapShape } {
    if (this.#closed) throw new BpfError('CLOSED', 0, '', `The module of ${this.path} is closed`)
    const found = this.#shapes.get(name)
    if (found === undefined) throw new BpfError('NO_SUCH_NAME', 0, '', `${this.path} has no map ${name}`)
    return found
  }

  #typed(fd: number, shape: MapShape, schema: MapSchema, inner: NativeMap['inner']): MapHandle {
    if (schema.kind === 'ringbuf') return new RingMap(fd, shape, this)
    if (schema.kind.includes('percpu')) return new PerCpuMap(fd, shape, schema.key, schema.value, this)
    if (schema.kind === 'sockmap' || schema.kind === 'sockhash') return new SocketMap(fd, shape, schema.key, this)
    if (schema.kind === 'lpm_trie') return new LpmMap(fd, shape, schema.key, schema.value, this)
    if (schema.inner !== undefined && inner !== undefined) {
      const innerShape = shapeOf({ ...inner, name: shape.name })
      return new MapOfMaps(fd, shape, schema.key, { ...schema.inner, shape: innerShape, flags: inner.flags }, this)
    }
    return new BpfMap(fd, shape, schema.key, schema.value, this)
  }
}

/**
 * Reads an object file: nothing is in the kernel yet. With a schema (from native/bpf/gen/) all names and values are typed
 * and the layout is held against the file's BTF (BpfError LAYOUT).
 */
export function openObject<S extends ObjectSchema = ObjectSchema>(path: string, schema?: S): BpfObject<S> {
  return new BpfObject(path, schema)
}

/** An object whose unknown names throw instead of being undefined: a misspelt map must not pass silently. */
function strict<T extends object>(target: T, what: string): T {
  return new Proxy(target, {
    get(object, name, receiver) {
      if (typeof name === 'symbol' || name === 'toJSON' || name === 'then' || name in object) {
        return Reflect.get(object, name, receiver) as unknown
      }
      throw new BpfError('NO_SUCH_NAME', 0, '', `${what} ${name}`)
    },
    set(object, name, value) {
      if (name in object) return Reflect.set(object, name, value)
      throw new BpfError('NO_SUCH_NAME', 0, '', `${what} ${String(name)}`)
    },
  })
}

function shapeOf(map: Pick<NativeMap, 'name' | 'type' | 'keySize' | 'valueSize' | 'maxEntries'>): MapShape {
  const { name, keySize, valueSize, maxEntries } = map
  return { name, type: mapTypes[map.type] ?? 'unspec', keySize, valueSize, maxEntries }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function assertLayout(btf: Btf, schema: ObjectSchema, path: string): void {
  const differs = (what: string): BpfError =>
    new BpfError('LAYOUT', 0, '', `${path} differs from its generated code: ${what}`, 'Run npm run gen')
  for (const [name, layout] of Object.entries(schema.layout)) {
    const struct = btf.struct(name)
    if (struct === undefined) throw differs(`it has no struct ${name}`)
    if (struct.size !== layout.size) throw differs(`struct ${name} has ${struct.size} bytes, not ${layout.size}`)
    const members = btf.flatMembers(struct.id)
    for (const [member, offset] of Object.entries(layout.members)) {
      const found = members.find((candidate) => candidate.name === member)
      if (found?.bitOffset !== offset * 8) throw differs(`${name}.${member} is not at ${offset}`)
    }
  }
  for (const name of schema.programs) if (!btf.programs.includes(name)) throw differs(`it has no program ${name}`)
  for (const [name, map] of Object.entries(schema.maps)) {
    const found = btf.maps.find((candidate) => candidate.name === name)
    if (found === undefined || found.kind !== map.kind) throw differs(`it has no ${map.kind} map ${name}`)
  }
}

function loadError(errno: number, log: string, path: string): BpfError {
  const refused = /prog '([^']+)': BPF program load failed/.exec(log)
  const words = /-- BEGIN PROG LOAD LOG --\n([\s\S]*?)(?:libbpf: )?-- END PROG LOAD LOG --/.exec(log)
  if (refused?.[1] !== undefined && words?.[1]?.trim()) {
    return new VerifierError(errno, refused[1], words[1].trimEnd().split('\n'))
  }
  const mismatch = /couldn't reuse pinned map at '([^']+)': parameter mismatch/.exec(log)
  if (mismatch?.[1] !== undefined) {
    const hint = 'Pin under a folder of another schema version, or remove the old pins'
    return new BpfError('PIN_MISMATCH', errno, 'BPF_OBJ_GET', `${mismatch[1]} has another shape than in ${path}`, hint)
  }
  return failure(errno, 'bpf_object__load', `Loading ${basename(path)} (${lastLines(log)})`)
}

function lastLines(log: string): string {
  const lines = log
    .trim()
    .split('\n')
    .filter((line) => line !== '')
  return lines.slice(-3).join('; ') || 'libbpf said nothing'
}
