// `npm run check`: types, lint, format (TypeScript, Markdown, C) and the import law, all of them even if one fails.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

function sources(folder: string, endings: readonly string[]): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes('/build/') && !path.includes('/gen/') && !path.includes('vmlinux'))
}

function step(name: string, command: string, args: readonly string[]): boolean {
  const started = performance.now()
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8' })
  const ok = result.status === 0
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  if (!ok) console.log(`${result.stdout ?? ''}${result.stderr ?? ''}`)
  return ok
}

const node = process.execPath
const c = [...sources('bpf', ['.c', '.h']), ...sources('native', ['.c', '.h', '.cc']), ...sources('test', ['.c'])]
const results = [
  step('types', node, ['node_modules/typescript/bin/tsc', '--noEmit', '-p', '.']),
  step('lint', node, [
    'node_modules/oxlint/bin/oxlint',
    '--type-aware',
    '--quiet',
    'agent',
    'native',
    'test',
    'deploy',
  ]),
  step('format', node, [
    'node_modules/prettier/bin/prettier.cjs',
    '--check',
    '--log-level=warn',
    'agent',
    'native',
    'test',
    'deploy',
    '*.md',
    '*.ts',
  ]),
  c.length === 0 || step('format of C', node, ['node_modules/clang-format/index.js', '--dry-run', '--Werror', ...c]),
  step('import law', node, ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', 'test/floors.test.ts']),
]
process.exit(results.every(Boolean) ? 0 : 1)
