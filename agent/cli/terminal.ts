// Where a command reads and writes: the process's own streams, or a test's strings. Must not live here: what is written.

export interface Terminal {
  out(text: string): void
  err(text: string): void
  /** Asks a person yes or no; no, when there is none at the terminal. */
  confirm(question: string): Promise<boolean>
  /** All of standard input. */
  read(): Promise<string>
  /** Escape sequences may be written. */
  readonly colour: boolean
}

/** Bytes of standard input taken; a folder's limit per file is the same order. */
const MAX_INPUT = 64 * 1024 * 1024

export const processTerminal: Terminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  async read() {
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
      length += chunk.length
      if (length > MAX_INPUT) break
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString('utf8')
  },
  async confirm(question) {
    if (process.stdin.isTTY !== true) return false
    const { createInterface } = await import('node:readline/promises')
    const line = createInterface({ input: process.stdin, output: process.stderr })
    try {
      return /^y(es)?$/i.test((await line.question(`${question} [y/N] `)).trim())
    } finally {
      line.close()
    }
  },
  colour: process.stdout.isTTY === true && !process.env['NO_COLOR'],
}
