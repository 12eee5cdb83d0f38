// The one error class of Ambit. An error names a stable code (dashboards and tests match on it, never on the text),
// says what happened to what, and hints at what to try. Must not live here: codes of a room (each room declares
// its own `code` literals where it throws them; test/docs.test.ts holds README's table to the code).

/** Where a piece of configuration came from, so that a refusal can name the place. */
export interface Place {
  readonly file: string
  /** 1-based line. */
  readonly line: number
  /** Path inside the document, as in `spec.http[0].route[1].weight`. */
  readonly field?: string
}

export interface AmbitErrorOptions {
  /** What a person can try, a full sentence. */
  readonly hint?: string
  readonly place?: Place
  readonly cause?: unknown
}

export class AmbitError extends Error {
  /** Stable, upper snake case, as in `CONFIG_UNKNOWN_FIELD`. */
  readonly code: string
  readonly hint: string | undefined
  readonly place: Place | undefined

  constructor(code: string, message: string, options: AmbitErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'AmbitError'
    this.code = code
    this.hint = options.hint
    this.place = options.place
  }

  /** One line for a person: `file:line: field: message (CODE). hint`. */
  describe(): string {
    const where = this.place
      ? `${this.place.file}:${this.place.line}: ${this.place.field ? `${this.place.field}: ` : ''}`
      : ''
    const hint = this.hint ? ` ${this.hint}` : ''
    return `${where}${this.message} [${this.code}]${hint}`
  }
}

/** The text of anything thrown, without a stack. */
export function messageOf(error: unknown): string {
  if (error instanceof AmbitError) return error.describe()
  return error instanceof Error ? error.message : String(error)
}
