// The programs and images a cluster is made of: has deploy/ build what is missing, and says where it is. Must not live here:
// running them.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { AmbitError } from '../../base/errors.ts'
import { run } from '../world/run.ts'

export interface Built {
  /** kube, kubectl, etcd, helm, coredns. */
  readonly programs: string
  /** Archives for `ctr images import`, and `init`, the first process of a node. */
  readonly images: string
}

/** The image of this checkout and of applications, as deploy/image/build.sh tells of them. */
export interface Images {
  readonly image: string
  /** To be imported in this order. */
  readonly archives: readonly string[]
  /** Of the image's files and, compressed, of its layers. */
  readonly bytes: number
  readonly compressed: number
  readonly apps: readonly string[]
}

/**
 * Installs and builds what is missing (a quarter of an hour the first time, `tell` hears what happens), resolves with where
 * it is. Throws SANDBOX_NOT_BUILT.
 */
export async function ensureBuilt(
  project: string,
  tell: (line: string) => void,
  stopped: Promise<void>,
): Promise<Built> {
  await build(join(project, 'deploy/setup.sh'), ['--kubernetes'], 'the programs of Kubernetes', tell, stopped)
  const folder = join(project, 'deploy', 'kubernetes')
  const programs = (await run(join(folder, 'build.sh'), ['--check'])).trim()
  const images = (await run(join(folder, 'images', 'images.sh'), [programs], { timeoutMs: 120_000 })).trim()
  return { programs, images }
}

/** Builds the image, and one for each image that manifests of these folders name. Throws SANDBOX_NOT_BUILT. */
export async function ensureImages(
  project: string,
  folders: readonly string[],
  tell: (line: string) => void,
  stopped: Promise<void>,
): Promise<Images> {
  const program = join(project, 'deploy/image/build.sh')
  return JSON.parse(await build(program, folders, 'the image', tell, stopped)) as Images
}

/** Runs a script that builds `what`; `tell` hears what it says. Resolves with its standard output. */
async function build(
  script: string,
  args: readonly string[],
  what: string,
  tell: (line: string) => void,
  stopped: Promise<void>,
): Promise<string> {
  const child = spawn(script, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  // The whole group: a compiler does not end because the shell above it does.
  void stopped.then(() => child.exitCode === null && process.kill(-child.pid!, 'SIGTERM'))
  let rest = ''
  let last = ''
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      last = line
      tell(line)
    }
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0)
    throw new AmbitError('SANDBOX_NOT_BUILT', `${what} could not be built: ${last}`, {
      hint: [script.slice(script.indexOf('deploy/')), ...args].join(' '),
    })
  return output
}
