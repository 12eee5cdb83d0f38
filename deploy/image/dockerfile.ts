// Reads the Dockerfile and .dockerignore, the subset that ours use; anything else is refused by line. Must not live here:
// carrying steps out (rootfs.ts).

/** One instruction; `line` is where it begins. */
export type Step = { readonly line: number; readonly text: string } & (
  | { readonly kind: 'run'; readonly command: string }
  | { readonly kind: 'packages'; readonly names: readonly string[] }
  | {
      readonly kind: 'copy'
      readonly from: string | undefined
      readonly sources: readonly string[]
      readonly to: string
    }
  | { readonly kind: 'workdir'; readonly path: string }
)

export interface Stage {
  /** Its name, or its number in the file. */
  readonly name: string
  readonly base: string
  readonly steps: readonly Step[]
}

export interface Dockerfile {
  /** The last one is the image. */
  readonly stages: readonly Stage[]
  /** Of the last stage. */
  readonly user: string
  readonly workdir: string
  /** `NAME=value`. */
  readonly environment: readonly string[]
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
}

const APT =
  /^apt-get update && apt-get install -y --no-install-recommends ([a-z0-9 .+-]+) && rm -rf \/var\/lib\/apt\/lists\/\*$/

/** Throws an Error naming the line for whatever the subset does not have. */
export function parseDockerfile(text: string): Dockerfile {
  const stages: { name: string; base: string; steps: Step[] }[] = []
  let [user, workdir, entrypoint, command] = ['0:0', '/', [] as string[], [] as string[]]
  let environment: string[] = []
  text.split('\n').forEach((raw, index) => {
    const line = index + 1
    const trimmed = raw.trim()
    if (trimmed === '' || trimmed.startsWith('#')) return
    const refuse = (why: string): Error => new Error(`Dockerfile:${line}: ${why}: ${trimmed}`)
    if (trimmed.endsWith('\\')) throw refuse('instructions stand on one line here')
    const [, word = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(trimmed) ?? []
    const add = (step: Step): void => {
      const stage = stages.at(-1)
      if (stage === undefined) throw refuse('nothing may stand before FROM')
      stage.steps.push(step)
    }
    const list = (): string[] => {
      const parsed: unknown = JSON.parse(rest)
      if (!Array.isArray(parsed)) throw refuse('the exec form is expected')
      return parsed.map(String)
    }
    switch (word) {
      case 'FROM': {
        const [, base, name] = /^(\S+)(?: AS (\S+))?$/.exec(rest) ?? []
        if (base === undefined) throw refuse('this form of FROM is not supported')
        const from = stages.find((earlier) => earlier.name === base)
        stages.push({ name: name ?? String(stages.length), base, steps: [] })
        ;[user, environment, entrypoint, command] = ['0:0', [], [], []]
        workdir = from === undefined ? '/' : workdirOf(from)
        if (from !== undefined) add({ line, text: trimmed, kind: 'workdir', path: workdir })
        break
      }
      case 'RUN': {
        const names = APT.exec(rest)?.[1]
        if (names !== undefined) add({ line, text: trimmed, kind: 'packages', names: names.split(' ') })
        else if (rest.includes('apt-get')) throw refuse('apt-get steps have one form only, see the head of the file')
        else add({ line, text: trimmed, kind: 'run', command: rest })
        break
      }
      case 'COPY': {
        const words = rest.split(/\s+/)
        const option = words[0]?.startsWith('--') ? words.shift() : undefined
        const from = option === undefined ? undefined : /^--from=(\S+)$/.exec(option)?.[1]
        const to = words.pop()
        if ((option !== undefined && from === undefined) || to === undefined || words.length === 0) {
          throw refuse('this form of COPY is not supported')
        }
        add({ line, text: trimmed, kind: 'copy', from, sources: words, to })
        break
      }
      case 'WORKDIR':
        workdir = rest
        add({ line, text: trimmed, kind: 'workdir', path: rest })
        break
      case 'USER':
        user = rest
        break
      case 'ENV':
        if (!/^[A-Z_]+=[^\s"'$]+$/.test(rest)) throw refuse('one NAME=value without quotes or references is expected')
        environment.push(rest)
        break
      case 'ENTRYPOINT':
        entrypoint = list()
        break
      case 'CMD':
        command = list()
        break
      default:
        throw refuse('this instruction is not supported')
    }
  })
  if (stages.length === 0) throw new Error('Dockerfile: there is no FROM')
  return { stages, user, workdir, environment, entrypoint, command }
}

/** The folder a stage's steps end in, which stages made from it begin in. */
function workdirOf(stage: Stage): string {
  const last = stage.steps.findLast((step) => step.kind === 'workdir')
  return last === undefined ? '/' : last.path
}

/** Whether a path of the context (relative, with slashes) is left out, by .dockerignore's text. */
export function ignoring(text: string): (path: string) => boolean {
  const patterns = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((pattern) => {
      if (pattern.startsWith('!')) throw new Error(`.dockerignore: exceptions are not supported: ${pattern}`)
      const source = pattern
        .split('/')
        .map((part) =>
          part === '**' ? '(?:.*/)?' : `${part.replace(/[.+^$()|[\]{}]/g, '\\$&').replace(/\*/g, '[^/]*')}/`,
        )
        .join('')
        .replace(/\/$/, '')
      return new RegExp(`^${source}(?:/|$)`)
    })
  return (path) => patterns.some((pattern) => pattern.test(path))
}
