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

/**
 * Installs and builds what is missing (a quarter of an hour the first time, `tell` hears what happens), resolves with where
 * it is. Throws SANDBOX_NOT_BUILT.
 */
export async function ensureBuilt(
  project: string,
  tell: (line: string) => void,
  stopped: Promise<void>,
): Promise<Built> {
  const setup = join(project, 'deploy', 'setup.sh')
  const child = spawn(setup, ['--kubernetes'], { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  // The whole group: a compiler does not end because the shell above it does.
  void stopped.then(() => child.exitCode === null && process.kill(-child.pid!, 'SIGTERM'))
  let rest = ''
  let last = ''
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
    throw new AmbitError('SANDBOX_NOT_BUILT', `the programs of Kubernetes could not be built: ${last}`, {
      hint: 'deploy/setup.sh --kubernetes',
    })
  const folder = join(project, 'deploy', 'kubernetes')
  const programs = (await run(join(folder, 'build.sh'), ['--check'])).trim()
  const images = (await run(join(folder, 'images', 'images.sh'), [programs], { timeoutMs: 120_000 })).trim()
  return { programs, images }
}
