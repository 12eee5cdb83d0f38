// A terminal of strings, for tests. Must not be imported by anything but tests.
import type { Terminal } from './terminal.ts'

export interface TestTerminal extends Terminal {
  text: string
  errors: string
}

/** Collects what is written; `input` is standard input. */
export function testTerminal(input = ''): TestTerminal {
  const terminal: TestTerminal = {
    text: '',
    errors: '',
    colour: false,
    out: (text) => void (terminal.text += text),
    err: (text) => void (terminal.errors += text),
    confirm: (question) => {
      terminal.text += question
      return Promise.resolve(input.startsWith('y'))
    },
    read: () => Promise.resolve(input),
  }
  return terminal
}
