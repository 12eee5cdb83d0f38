// The pages of deploy/reference that are made from the programs themselves. `deploy/gen.ts` writes them with everything else
// that is generated. Must not live here: pages written by hand (errors.md, metrics.md).
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { format } from 'prettier'
import { cliPage } from './cli.ts'
import { kindsPage } from './kinds.ts'

/** Names of the pages made here; the others in the folder are written by hand. */
export const GENERATED: readonly string[] = ['cli.md', 'kinds.md']

/** Writes the pages into `out`. */
export async function generate(out: string): Promise<void> {
  mkdirSync(out, { recursive: true })
  const pages: Record<string, string> = { 'cli.md': await cliPage(), 'kinds.md': kindsPage() }
  for (const name of GENERATED) {
    const text = await format(pages[name] ?? '', {
      parser: 'markdown',
      semi: false,
      singleQuote: true,
      printWidth: 120,
    })
    writeFileSync(join(out, name), text)
  }
}
