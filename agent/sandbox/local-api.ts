// How the other commands reach the process that runs a sandbox: a unix socket in its folder, one JSON object a line each
// way. Root only, by the folder's mode. Must not live here: what is asked (sandbox.ts), the command line (main.ts).
import { existsSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { AmbitError } from '../base/errors.ts'
import { sandboxNames } from './claim.ts'
import { homeOf } from './layout.ts'
import { pathsOf } from './programs.ts'

export interface Ask {
  readonly op: 'status' | 'exec' | 'down' | 'ready'
  readonly pod?: string
  readonly container?: string
  readonly command?: readonly string[]
  readonly terminal?: string
}

/** Longest request: a command line. */
const MAX_REQUEST = 1024 * 1024

/** Answers requests until closed. */
export async function serveLocalApi(path: string, answer: (ask: Ask) => Promise<unknown>): Promise<Server> {
  const server = createServer((socket) => {
    let text = ''
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      const end = text.indexOf('\n')
      if (end < 0) {
        if (text.length > MAX_REQUEST) socket.destroy()
        return
      }
      const line = text.slice(0, end)
      text = ''
      const reply = (value: unknown): void => {
        if (!socket.destroyed) socket.end(`${JSON.stringify(value)}\n`)
      }
      Promise.resolve()
        .then(() => answer(JSON.parse(line) as Ask))
        .then((value) => reply({ ok: true, value }))
        .catch((error: unknown) => {
          const known = error instanceof AmbitError
          reply({
            ok: false,
            code: known ? error.code : 'SANDBOX_INTERNAL',
            message: error instanceof Error ? error.message : String(error),
            hint: known ? error.hint : undefined,
          })
        })
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return server
}

/** Asks the process that runs the sandbox `name`. Throws SANDBOX_NOT_RUNNING, or what the answer says. */
export function askSandbox(name: string, ask: Ask, timeoutMs = 30_000): Promise<unknown> {
  const path = pathsOf(homeOf(name)).socket
  const absent = (): AmbitError => {
    const others = sandboxNames().filter((other) => other !== name)
    return new AmbitError('SANDBOX_NOT_RUNNING', `no sandbox '${name}' is running`, {
      hint: others.length > 0 ? `There is: ${others.join(', ')} (--name).` : 'Start one: ambit sandbox up DIR --detach',
    })
  }
  if (!existsSync(path)) return Promise.reject(absent())
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    let text = ''
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`the sandbox did not answer within ${timeoutMs} ms`)))
    socket.on('connect', () => socket.write(`${JSON.stringify(ask)}\n`))
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'ECONNREFUSED' || error.code === 'ENOENT' ? absent() : error),
    )
    socket.on('end', () => {
      let reply: { ok: boolean; value?: unknown; code?: string; message?: string; hint?: string }
      try {
        reply = JSON.parse(text) as typeof reply
      } catch {
        reject(absent())
        return
      }
      if (reply.ok) resolve(reply.value)
      else
        reject(
          new AmbitError(reply.code ?? 'SANDBOX_INTERNAL', reply.message ?? '', reply.hint ? { hint: reply.hint } : {}),
        )
    })
  })
}
