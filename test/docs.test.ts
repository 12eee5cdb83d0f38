// What the documents say is held to what is there: links, commands, files, error codes. Must not live here: the texts.
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { collectCodes, errorsFile, errorsPage } from '../deploy/reference/errors.ts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const pages = [
  ...readdirSync(root).filter((name) => name.endsWith('.md')),
  'native/bpf/README.md',
  'bpf/README.md',
  'deploy/examples/article.md',
  'deploy/reference/errors.md',
]
const text = (page: string): string => readFileSync(join(root, page), 'utf8')

describe('the documents', () => {
  it('link only to what exists', () => {
    const broken = pages.flatMap((page) =>
      [...text(page).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
        .map((match) => match[1] as string)
        .filter((link) => !/^[a-z]+:/.test(link) && !existsSync(join(root, dirname(page), link)))
        .map((link) => `${page}: ${link}`),
    )
    expect(broken).toEqual([])
  })

  it('name only npm scripts that exist', () => {
    const scripts = Object.keys((JSON.parse(text('package.json')) as { scripts: Record<string, string> }).scripts)
    const named = pages.flatMap((page) =>
      [...text(page).matchAll(/npm run ([a-z-]+)/g)].map((match) => match[1] as string),
    )
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((name) => !scripts.includes(name))).toEqual([])
  })

  it('name only commands of ambit that exist', () => {
    const known = ['agent', 'waypoint', 'control', 'sandbox', 'app', 'analyze', 'explain', 'version']
    const named = pages
      .filter((page) => !page.includes('errors'))
      .flatMap((page) =>
        [...text(page).matchAll(/`(?:agent\/bin\/)?ambit ([a-z]+)/g)].map((match) => match[1] as string),
      )
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((name) => !known.includes(name))).toEqual([])
  })

  it('name only files that exist', () => {
    const broken = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md'].flatMap((page) =>
      [...text(page).matchAll(/`((?:agent|native|bpf|deploy|test)\/[A-Za-z0-9_./-]+)`/g)]
        .map((match) => match[1] as string)
        .filter((path) => !existsSync(join(root, path)) && !path.startsWith('agent/**'))
        .map((path) => `${page}: ${path}`),
    )
    expect(broken).toEqual([])
  })

  it('list every error code of the source, freshly', () => {
    expect(collectCodes().length).toBeGreaterThan(60)
    expect(readFileSync(errorsFile, 'utf8'), 'run `npm run gen`').toBe(errorsPage())
  })
})
