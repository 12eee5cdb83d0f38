// `ambit control` as a process of this machine that reads a real cluster. Must not live here: expectations.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ambit, eventually } from './sandbox.ts'

export interface ControlProcess {
  readonly child: ChildProcess
  readonly folder: string
  readonly logFile: string
  /** An answer of the admin server: status and text. */
  admin(path: string): Promise<{ readonly status: number; readonly text: string }>
  /** The configuration dump. */
  dump(): Promise<Record<string, unknown> & { translation?: Record<string, readonly unknown[]> }>
  log(): string
  /** Ends it; -9 says nothing to it before. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/** Starts control with `flags` added; what it writes lies in a folder of its own that `stop` removes. */
export function startControl(
  kubeconfig: string,
  flags: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
): ControlProcess {
  const folder = mkdtempSync(join(tmpdir(), 'ambit-control-'))
  const socket = join(folder, 'admin.sock')
  const logFile = join(folder, 'log')
  // prettier-ignore
  const child = spawn('sh', ['-c', 'exec "$@" >>"$0" 2>&1', logFile, ambit, 'control',
    '--kubeconfig', kubeconfig, '--listen', '127.0.0.1:0', '--admin', `unix:${socket}`,
    ...flags,
  ], { stdio: 'ignore', env: { ...process.env, ...environment } })
  const admin = (path: string): Promise<{ status: number; text: string }> =>
    new Promise((resolve, reject) => {
      const asked = request({ socketPath: socket, path }, (answer) => {
        let text = ''
        answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }))
      })
      asked.on('error', reject)
      asked.end()
    })
  return {
    child,
    folder,
    logFile,
    admin,
    async dump() {
      const { text } = await admin('/config_dump')
      return JSON.parse(text) as Awaited<ReturnType<ControlProcess['dump']>>
    },
    log: () => readFileSync(logFile, 'utf8'),
    async stop(signal = 'SIGTERM') {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal)
        await once(child, 'exit')
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The same, and waits until it is ready; one that never is has ended when this rejects. */
export async function startReadyControl(kubeconfig: string, flags: readonly string[] = []): Promise<ControlProcess> {
  const control = startControl(kubeconfig, flags)
  try {
    await eventually('control is ready', async () => (await control.admin('/healthz/ready')).status === 200, 30_000)
    return control
  } catch (error) {
    process.stderr.write(control.log())
    await control.stop('SIGKILL')
    throw error
  }
}
