// The scripts in the shells they are for: each is sourced as a person does it, and asked for what a Tab would give.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nodesOf } from '../cli/completion.ts'
import { testTerminal } from '../cli/samples.ts'
import { main, wholeCommand } from './completion.ts'

const bin = import.meta.dirname
const has = (shell: string): boolean => spawnSync(shell, ['-c', 'exit 0']).status === 0

let folder: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ambit-completion-'))
  for (const shell of ['bash', 'zsh', 'fish']) {
    const terminal = testTerminal()
    expect(await main([shell], terminal)).toBe(0)
    writeFileSync(join(folder, shell), terminal.text)
  }
})
afterAll(() => rmSync(folder, { recursive: true }))

/** What is typed, and what is proposed for its last word. `/tree/` stands for this checkout. */
const CASES: readonly (readonly [typed: string, proposals: readonly string[]])[] = [
  ['ambit sta', ['status']],
  ['ambit config d', ['diff', 'dump']],
  ['ambit sandbox up --kub', ['--kubernetes']],
  ['ambit status -o j', ['json']],
  ['ambit config dump -o ', ['json', 'yaml']],
  ['ambit control --log-level d', ['debug']],
  ['ambit status --name up --out', ['--output']],
  ['ambit completion f', ['fish']],
  ['ambit version x', []],
]

describe('the definitions', () => {
  it('are of every program, with what each flag takes', () => {
    const nodes = nodesOf(wholeCommand(testTerminal()))
    expect(nodes.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['', 'status', 'config diff', 'sandbox up', 'agent', 'app echo', 'completion']),
    )
    const flag = (path: string, name: string) =>
      nodes.find((one) => one.path === path)?.flags.find(({ names }) => names.includes(name))
    expect(flag('status', '-o')?.value).toEqual({ words: ['text', 'json', 'yaml'] })
    expect(flag('status', '--kubeconfig')?.value).toBe('file')
    expect(flag('uninstall', '--dry-run')?.value).toBeUndefined()
    expect(flag('control', '--state-dir')?.value).toBe('folder')
    expect(nodes.some(({ path }) => path.includes('dns'))).toBe(false)
  })

  it('refuse a shell that is none of the three', async () => {
    const terminal = testTerminal()
    expect(await main(['tcsh'], terminal)).toBe(2)
    expect(terminal.errors).toContain('bash, zsh, fish')
  })
})

/** On a terminal (test/world/terminal.py): each text must come after its words and Tab were typed. */
function onTerminal(command: readonly string[], ready: string, steps: readonly (readonly [string, string])[]): void {
  // What is typed is shown as well: so the mark is not in it.
  const typed = [[`${ready}; echo rea''dy\n`, '^ready'], ...steps.map(([words, shown]) => [`\x15${words}\t`, shown])]
  const asked = JSON.stringify({ command, steps: typed, seconds: 60 })
  const ran = spawnSync('python3', [join(dirname(dirname(bin)), 'test/world/terminal.py'), asked], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}` },
  })
  expect(ran.status, ran.stdout + ran.stderr).toBe(0)
}

describe('bash', () => {
  it('completes on a terminal', { timeout: 70_000 }, () => {
    onTerminal(['bash', '--norc', '--noprofile', '-i'], `source ${folder}/bash`, [
      ['ambit sta', 'ambit status $'],
      ['ambit status --output=ya', '--output=yaml $'],
      [`ambit analyze ${dirname(bin)}/cli/comm`, '/cli/commands/$'],
    ])
  })

  it.each(CASES)('proposes for %j: %j', (typed, proposals) => {
    const words = typed.split(' ')
    const script = `source ${folder}/bash; COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _ambit; printf '%s\\n' "\${COMPREPLY[@]}"`
    const out = execFileSync('bash', ['--norc', '-c', script], { encoding: 'utf8' })
    expect(out.split('\n').filter(Boolean).toSorted()).toEqual(proposals)
  })

  it('gives kubectl what it asks a plugin for, a proposal a line and that there are no files', () => {
    const asked = (...words: string[]): string[] =>
      execFileSync(join(bin, 'kubectl_complete-ambit'), words, { encoding: 'utf8' }).trim().split('\n')
    expect(asked('sta')).toEqual(['status', ':4'])
    expect(asked('config', 'dump', '-o', '')).toEqual(['json', 'yaml', ':4'])
  })
})

describe.skipIf(!has('fish'))('fish', () => {
  it.each(CASES)('proposes for %j: %j', (typed, proposals) => {
    const out = execFileSync('fish', ['-N', '-c', `source ${folder}/fish; complete -C '${typed}'`], {
      encoding: 'utf8',
      env: { ...process.env, HOME: folder },
    })
    const words = out.split('\n').filter(Boolean)
    expect(words.map((line) => line.split('\t')[0] ?? '').toSorted()).toEqual(proposals)
  })
})

describe.skipIf(!has('zsh'))('zsh', () => {
  it('completes on a terminal', { timeout: 70_000 }, () => {
    const ready = `autoload -U compinit; compinit -u -D; source ${folder}/zsh; bindkey -e; PS1='> '`
    onTerminal(['zsh', '-f', '-i'], ready, [
      ['ambit sta', 'ambit status $'],
      ['ambit status -o j', '-o json $'],
      ['ambit status --output=ya', '--output=yaml $'],
      ['ambit config d', 'diff +-- Name(.|\\n)*dump +-- Print'],
    ])
  })
})
