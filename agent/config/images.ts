// images.yaml: which command stands for a container image where no images can be run (the sandbox).
// Must not live here: running it (sandbox/).
import { isRecord } from './check.ts'
import { readDocuments } from './document.ts'
import type { Problem } from './problem.ts'
import { formatPath, type FieldPath } from './resource.ts'

/** The file of a folder that holds the map; it is no Kubernetes document. */
export const IMAGES_FILE = 'images.yaml'

export interface Images {
  /** Image → argument vector. A command given as one string is a shell's: `/bin/sh -c …`. */
  readonly commands: ReadonlyMap<string, readonly string[]>
  readonly problems: readonly Problem[]
}

/** Reads a map of image names to commands (a list of arguments, or one line for the shell). Never throws. */
export function parseImages(text: string, file: string): Images {
  const commands = new Map<string, readonly string[]>()
  const [document] = readDocuments(text, file)
  if (!document) return { commands, problems: [] }
  if (document.problems.length > 0) return { commands, problems: document.problems }
  const problems: Problem[] = []
  const fail = (path: FieldPath, message: string, hint: string) =>
    problems.push({
      severity: 'error',
      code: 'CONFIG_WRONG_TYPE',
      file,
      line: document.origin.line(path),
      field: formatPath(path),
      message,
      hint,
    })
  if (!isRecord(document.value)) {
    fail([], `${IMAGES_FILE} must be a map of image names to commands.`, 'Write my-app:v1: [ambit, app, echo].')
    return { commands, problems }
  }
  for (const [image, command] of Object.entries(document.value)) {
    if (typeof command === 'string' && command !== '') commands.set(image, ['/bin/sh', '-c', command])
    else if (Array.isArray(command) && command.length > 0 && command.every((word) => typeof word === 'string'))
      commands.set(image, command)
    else fail([image], 'A command must be a list of strings or one string.', 'Write [ambit, app, echo]; quote numbers.')
  }
  return { commands, problems }
}
