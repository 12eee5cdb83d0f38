// What a shell is to know of a command line, read from commander's definitions, and the scripts that tell it: bash, zsh, fish. Pure.
// Must not live here: which commands there are (bin/completion.ts).
import type { Command, Option } from 'commander'

/** What a value is: nothing to guess, one of some words, a file, a folder. */
export type Value = { readonly words: readonly string[] } | 'file' | 'folder' | 'any'

export interface Flag {
  readonly names: readonly string[]
  readonly about: string
  /** Absent: it takes none. */
  readonly value?: Value
}

/** One command, by the words that lead to it. */
export interface Node {
  /** `sandbox up`; '' for the whole. */
  readonly path: string
  readonly commands: readonly { readonly name: string; readonly about: string }[]
  readonly flags: readonly Flag[]
  /** Of its arguments. */
  readonly value: Value
}

/** Every command below, the given one first, under the words that lead to it. Hidden ones are left out. */
export function nodesOf(command: Command, path = ''): Node[] {
  const help = command.createHelp()
  const below = help.visibleCommands(command).filter((one) => one.name() !== 'help')
  const [argument] = command.registeredArguments
  return [
    {
      path,
      commands: below.map((one) => ({ name: one.name(), about: sentence(one.description()) })),
      flags: [...help.visibleOptions(command)].map(flagOf),
      value: argument
        ? argument.argChoices
          ? { words: argument.argChoices }
          : valueOf(argument.name(), argument.description)
        : 'any',
    },
    ...below.flatMap((one) => nodesOf(one, path === '' ? one.name() : `${path} ${one.name()}`)),
  ]
}

function flagOf(option: Option): Flag {
  const names = [option.short, option.long].filter((name) => name !== undefined)
  const about = sentence(option.description)
  if (!option.required && !option.optional) return { names, about }
  const placeholder = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? ''
  return { names, about, value: option.argChoices ? { words: option.argChoices } : valueOf(placeholder, about) }
}

/** By what a placeholder is called, and the words that its text lists (`text, json or yaml`). */
function valueOf(placeholder: string, about: string): Value {
  const name = placeholder.replaceAll(/[.[\]]/g, '').toLowerCase()
  if (/^(dir|folder)$/.test(name)) return /files/.test(about) ? 'file' : 'folder'
  if (/^(file|path)$/.test(name)) return 'file'
  if (name === 'format') return { words: about.split(/,\s*|\s+or\s+/).filter((word) => /^[a-z]+$/.test(word)) }
  if (name === 'level')
    return { words: about.split(/[,\s]+/).filter((word) => /^(trace|debug|info|warn|error)$/.test(word)) }
  return 'any'
}

/** The first sentence, without what a shell would read something into. */
function sentence(text: string): string {
  return (text.split(/(?<=\w)[.;] /)[0] ?? '')
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/['"`\\$:[\]]/g, '')
    .replace(/\.$/, '')
}

const takesValue = (node: Node): string[] =>
  node.flags.filter(({ value }) => value !== undefined).flatMap(({ names }) => names)
const all = (node: Node): string[] => node.flags.flatMap(({ names }) => names)
const quoted = (words: readonly string[]): string => words.map((word) => `'${word}'`).join(' ')

/** `ambit completion bash`. Works for `kubectl ambit` too, by kubectl's own way of asking plugins (kubectl_complete-ambit). */
export function bashScript(nodes: readonly Node[]): string {
  const steps = nodes.flatMap(({ path, commands }) =>
    commands.map(({ name }) => `      '${path} ${name}') path='${path === '' ? name : `${path} ${name}`}' ;;`),
  )
  const values = nodes.map((node) => `      '${node.path}') echo "${takesValue(node).join(' ')}" ;;`)
  const offers = nodes.flatMap((node) => [
    `    '${node.path}')`,
    `      flags='${all(node).join(' ')}'`,
    `      commands='${node.commands.map(({ name }) => name).join(' ')}'`,
    ...(node.value === 'any' ? [] : [`      value='${bashValue(node.value)}'`]),
    '      case "$previous" in',
    ...node.flags
      .filter(({ value }) => value !== undefined)
      .map(({ names, value }) => `        ${names.join('|')}) wants='${bashValue(value!)}' ;;`),
    '      esac',
    '      ;;',
  ])
  return `# Completion of ambit for bash, by \`ambit completion bash\`:
#   source <(ambit completion bash)
_ambit_takes_value() {
  case "$1" in
${values.join('\n')}
  esac
}

_ambit() {
  local current previous path='' word last='' flags='' commands='' value='' wants='' words=() at
  # Bash breaks words at = and :, which flags and addresses have in them.
  words=("\${COMP_WORDS[@]:0:COMP_CWORD}")
  current=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  if [[ $current == = ]]; then current=''
  elif ((COMP_CWORD > 1)) && [[ \${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
    words=("\${COMP_WORDS[@]:0:COMP_CWORD-1}")
  fi
  previous=\${words[-1]}
  for ((at = 1; at < \${#words[@]}; at++)); do
    word=\${words[at]}
    if [[ " $(_ambit_takes_value "$path") " == *" $last "* && -n $last ]]; then last=''; continue; fi
    last=$word
    case "$path $word" in
${steps.join('\n')}
    esac
  done
  case "$path" in
${offers.join('\n')}
  esac
  if [[ -n $wants ]]; then value=$wants
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
    return
  elif [[ -n $commands ]]; then
    COMPREPLY=($(compgen -W "$commands" -- "$current"))
    return
  fi
  case "$value" in
    @file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")) ;;
    @folder) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$current")) ;;
    @any|'') ;;
    *) COMPREPLY=($(compgen -W "$value" -- "$current")) ;;
  esac
}
complete -F _ambit ambit
`
}

function bashValue(value: Value): string {
  return typeof value === 'string' ? `@${value}` : value.words.join(' ')
}

/** \`ambit completion zsh\`. */
export function zshScript(nodes: readonly Node[]): string {
  const functions = nodes.map((node) => {
    const flags = node.flags.map((flag) => zshFlag(flag))
    const rest =
      node.commands.length > 0 ? [`'1: :->command'`, `'*:: :->below'`] : [`'*:value:${zshValue(node.value)}'`]
    const names = node.commands.map(({ name, about }) => `      '${name}:${about}'`)
    const below = node.commands.map(
      ({ name }) => `      ${name}) ${zshName(node.path === '' ? name : `${node.path} ${name}`)} ;;`,
    )
    return [
      `${zshName(node.path)}() {`,
      '  local curcontext="$curcontext" state line',
      '  typeset -A opt_args',
      `  _arguments -C ${[...flags, ...rest].join(' \\\n    ')}`,
      ...(below.length > 0
        ? [
            '  case $state in',
            '  command)',
            '    local -a names=(',
            ...names,
            '    )',
            '    _describe -t commands command names',
            '    ;;',
            '  below)',
            '    case $line[1] in',
            ...below,
            '    esac',
            '    ;;',
            '  esac',
          ]
        : []),
      '}',
    ].join('\n')
  })
  return `#compdef ambit
# Completion of ambit for zsh, by \`ambit completion zsh\`: put it into a folder of $fpath as _ambit, or
#   source <(ambit completion zsh)
${functions.join('\n\n')}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _ambit "$@"; else compdef _ambit ambit; fi
`
}

const zshName = (path: string): string => (path === '' ? '_ambit' : `_ambit_${path.replaceAll(/[ -]/g, '_')}`)

function zshFlag({ names, about, value }: Flag): string {
  const what = value === undefined ? '' : `:value:${zshValue(value)}`
  // With a value a long one may have it behind `=` or in the next word.
  const [one = '', two] = names.map((name) => (value !== undefined && name.startsWith('--') ? `${name}=` : name))
  return two === undefined ? `'*${one}[${about}]${what}'` : `'*'{${one},${two}}'[${about}]${what}'`
}

function zshValue(value: Value): string {
  return value === 'file'
    ? '_files'
    : value === 'folder'
      ? '_files -/'
      : value === 'any'
        ? ' '
        : `(${value.words.join(' ')})`
}

/** \`ambit completion fish\`. */
export function fishScript(nodes: readonly Node[]): string {
  const steps = nodes.flatMap(({ path, commands }) =>
    commands.map(
      ({ name }) =>
        `            case '${path} ${name}'\n                set path '${path === '' ? name : `${path} ${name}`}'`,
    ),
  )
  const values = nodes.map((node) => `        case '${node.path}'\n            echo ${quoted(takesValue(node))}`)
  const lines = nodes.flatMap((node) => {
    const at = `complete -c ambit -n "__ambit_at '${node.path}'"`
    return [
      ...node.commands.map(({ name, about }) => `${at} -f -a '${name}' -d '${about}'`),
      ...(node.commands.length === 0 ? [`${at} ${fishValue(node.value, '-a')}`] : []),
      ...node.flags.map(({ names, about, value }) => {
        const spelled = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`))
        return `${at} ${spelled.join(' ')} -d '${about}'${value === undefined ? '' : ` -r ${fishValue(value, '-a')}`}`
      }),
    ]
  })
  return `# Completion of ambit for fish, by \`ambit completion fish\`:
#   ambit completion fish | source
function __ambit_takes_value
    switch "$argv[1]"
${values.join('\n')}
    end
end

function __ambit_at
    set -l path ''
    set -l last ''
    for word in (commandline -opc)[2..]
        if test -n "$last"; and contains -- $last (__ambit_takes_value "$path")
            set last ''
            continue
        end
        set last $word
        switch "$path $word"
${steps.join('\n')}
        end
    end
    test "$path" = "$argv[1]"
end

complete -c ambit -f
${lines.join('\n')}
`
}

function fishValue(value: Value, flag: string): string {
  if (value === 'file') return '-F'
  if (value === 'folder') return `-f ${flag} '(__fish_complete_directories)'`
  return value === 'any' ? '-f' : `-f ${flag} '${value.words.join(' ')}'`
}
