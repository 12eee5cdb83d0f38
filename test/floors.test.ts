// The import law (ARCHITECTURE.md, "Floors and rooms"): a floor imports only floors below it, rooms on one floor never
// import each other, and each heavy dependency has one room. Read from the source text, so that nothing has to run.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Rooms of agent/ by floor. */
const FLOORS: Readonly<Record<string, number>> = {
  base: 1,
  mesh: 2,
  io: 2,
  config: 3,
  http: 3,
  kube: 3,
  wire: 3,
  pki: 3,
  telemetry: 3,
  node: 4,
  waypoint: 4,
  control: 4,
  cli: 4,
  sandbox: 5,
  bin: 6,
}

/** Dependency → the folders that may import it (tests beside the code follow the same law unless named here). */
const HOMES: readonly { what: RegExp; homes: readonly string[]; tests?: boolean }[] = [
  { what: /^@grpc\/grpc-js/, homes: ['agent/wire/'], tests: true },
  { what: /^(@peculiar\/x509|reflect-metadata)/, homes: ['agent/pki/'] },
  { what: /^@kubernetes\/client-node/, homes: ['agent/kube/'] },
  { what: /^ws$/, homes: ['agent/kube/'] },
  { what: /^prom-client/, homes: ['agent/telemetry/'] },
  { what: /^pino/, homes: ['agent/base/log.ts'] },
  { what: /^zod/, homes: ['agent/config/', 'agent/base/env.ts'] },
  { what: /^re2js/, homes: ['agent/base/regex.ts'] },
  { what: /^(node:)?http2$/, homes: ['agent/sandbox/app/'], tests: true },
  { what: /native\/bpf\//, homes: ['agent/node/redirect/', 'native/bpf/'], tests: true },
  { what: /native\/io\//, homes: ['agent/io/', 'native/io/'], tests: true },
]

interface Import {
  readonly file: string
  readonly line: number
  readonly target: string
}

function importsBelow(folder: string): Import[] {
  const found: Import[] = []
  for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts') || entry.name.endsWith('.d.ts')) continue
    const file = relative(root, join(entry.parentPath, entry.name))
    if (file.includes('/gen/') || file.includes('/build/')) continue
    const text = readFileSync(join(root, file), 'utf8')
    for (const match of text.matchAll(
      /(?:^|\n)\s*(?:import|export)\b[^'"\n]*?(?:\bfrom\s*)?['"]([^'"\n]+)['"]|\bimport\(\s*['"]([^'"]+)['"]|\}\s*from\s*['"]([^'"]+)['"]/g,
    )) {
      const specifier = match[1] ?? match[2] ?? match[3] ?? ''
      const target = specifier.startsWith('.')
        ? relative(root, resolve(dirname(join(root, file)), specifier))
        : specifier
      found.push({ file, line: text.slice(0, match.index + match[0].length).split('\n').length, target })
    }
  }
  return found
}

const imports = importsBelow('agent')

function roomOf(path: string): string | undefined {
  return path.startsWith('agent/') ? path.split('/')[1] : undefined
}

describe('the import law', () => {
  it('finds imports to judge', () => {
    expect(imports.length).toBeGreaterThan(20)
  })

  it('knows the floor of every room', () => {
    const rooms = readdirSync(join(root, 'agent'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
    expect(rooms.map((room) => room.name).filter((name) => FLOORS[name] === undefined)).toEqual([])
  })

  it('lets a floor import only floors below it, and no room its neighbour', () => {
    const broken = imports.filter(({ file, target }) => {
      const from = roomOf(file)
      const to = roomOf(target)
      if (!from || !to || from === to) return false
      return (FLOORS[to] ?? 99) >= (FLOORS[from] ?? 0)
    })
    expect(broken.map((bad) => `${bad.file}:${bad.line} imports ${bad.target}`)).toEqual([])
  })

  it('lets no program import what tests share', () => {
    const isTesting = /\/testing(-[a-z0-9]+)?\.ts$/
    const broken = imports.filter(
      ({ file, target }) => isTesting.test(target) && !isTesting.test(file) && !file.endsWith('.test.ts'),
    )
    expect(broken.map((bad) => `${bad.file}:${bad.line} imports ${bad.target}`)).toEqual([])
  })

  it('keeps each heavy dependency in its one room', () => {
    const all = [...imports, ...importsBelow('native'), ...importsBelow('test')]
    const broken = all.filter(({ file, target }) =>
      HOMES.some(({ what, homes, tests }) => {
        if (!what.test(target)) return false
        if (homes.some((home) => file.startsWith(home))) return false
        // What tests share beside the code they test is called testing.ts or testing-….ts, and is imported by them only.
        const isTest = /(^test\/|\.test\.ts$|\/testing(-[a-z0-9]+)?\.ts$)/.test(file)
        return !(tests === true && isTest)
      }),
    )
    expect(broken.map((bad) => `${bad.file}:${bad.line} imports ${bad.target}`)).toEqual([])
  })

  it('has no import of a file that does not exist', () => {
    const broken = imports.filter(({ target }) => target.startsWith('agent/') && !existsSync(join(root, target)))
    expect(broken.map((bad) => `${bad.file}:${bad.line} imports ${bad.target}`)).toEqual([])
  })
})
