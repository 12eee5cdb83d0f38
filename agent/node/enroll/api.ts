// The agent's local API: a unix stream socket, one JSON object a line each way, for the sandbox and a CNI plugin. Who can
// open the socket may do everything, so it is 0600 and its path must be out of pods' reach. Must not live here: what is done.
import { chmodSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Enrollment, PodStatus } from './contract.ts'
import { parsePod } from './registry.ts'

/** Longest request; a pod with sixteen addresses needs under two kilobytes. */
export const MAX_LINE = 65_536
/** Open connections; further ones are closed at once. As many pods as a node has may start at one time. */
const MAX_CONNECTIONS = 256
/** sun_path holds 108 bytes with its end. */
export const MAX_SOCKET_PATH = 107

/** What the API drives. */
export type ApiTarget = Pick<Enrollment, 'add' | 'del' | 'list' | 'status' | 'changed'>

export interface Api {
  close(): Promise<void>
}

/**
 * Listens at `path`. The socket appears there with its mode set already, in place of an earlier agent's.
 * Throws ENROLL_SOCKET.
 */
export async function openApi(path: string, target: ApiTarget, log: Logger): Promise<Api> {
  const temporary = `${path}.new`
  if (Buffer.byteLength(temporary) > MAX_SOCKET_PATH) {
    throw new AmbitError('ENROLL_SOCKET', `The socket path ${path} is too long.`, {
      hint: `Choose one of at most ${MAX_SOCKET_PATH - '.new'.length} bytes.`,
    })
  }
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    void serve(socket, target, log)
  })
  server.maxConnections = MAX_CONNECTIONS
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    rmSync(temporary, { force: true })
    await listen(server, temporary)
    chmodSync(temporary, 0o600)
    renameSync(temporary, path)
  } catch (error) {
    server.close()
    throw new AmbitError('ENROLL_SOCKET', `The local API cannot listen at ${path}: ${messageOf(error)}.`, {
      cause: error,
    })
  }
  const { ino } = statSync(path)
  return {
    close: async () => {
      // Another agent may have put its own there meanwhile.
      if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true })
      for (const socket of open) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // Nobody else may connect in the moment before chmod either.
    const before = process.umask(0o177)
    try {
      server.listen(path, () => {
        server.off('error', reject)
        resolve()
      })
    } finally {
      process.umask(before)
    }
  })
}

/** Answers the lines of one connection in their order, one at a time: a slow client gets no second request started. */
async function serve(socket: Socket, target: ApiTarget, log: Logger): Promise<void> {
  let rest = ''
  socket.setEncoding('utf8')
  try {
    for await (const chunk of socket as AsyncIterable<string>) {
      rest += chunk
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
        const line = rest.slice(0, end)
        rest = rest.slice(end + 1)
        if (line.trim() !== '') await reply(socket, await answer(line, target, log))
      }
      if (rest.length > MAX_LINE) {
        await reply(socket, refusal(new AmbitError('ENROLL_LINE_TOO_LONG', `A line has over ${MAX_LINE} characters.`)))
        break
      }
    }
    socket.end()
  } catch {
    // The client went away in the middle; what it asked for is done all the same.
    socket.destroy()
  }
}

function reply(socket: Socket, answer: object): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(`${JSON.stringify(answer)}\n`, (error) => (error ? reject(error) : resolve()))
  })
}

async function answer(line: string, target: ApiTarget, log: Logger): Promise<object> {
  try {
    return { ok: true, ...(await perform(line, target)) }
  } catch (error) {
    if (!(error instanceof AmbitError)) log.error({ error: messageOf(error) }, 'the local API met a bug')
    return refusal(error)
  }
}

function refusal(error: unknown): object {
  if (!(error instanceof AmbitError)) return { ok: false, code: 'ENROLL_INTERNAL', message: messageOf(error) }
  return { ok: false, code: error.code, message: error.message, ...(error.hint ? { hint: error.hint } : {}) }
}

async function perform(line: string, target: ApiTarget): Promise<object> {
  if (line.length > MAX_LINE) {
    throw new AmbitError('ENROLL_LINE_TOO_LONG', `A line has over ${MAX_LINE} characters.`)
  }
  const request = parse(line)
  switch (request['op']) {
    case 'add':
      return describe(await target.add(parsePod(request)))
    case 'del':
      return { removed: await target.del(uidOf(request), sandboxOf(request)) }
    case 'list':
      return { pods: target.list().map(describe) }
    case 'check': {
      const status = target.status(uidOf(request))
      const sandbox = sandboxOf(request)
      // Of a pod that was found, not told of, the sandbox is not known.
      const known = status?.pod.sandbox ?? sandbox
      if (status && (sandbox === undefined || known === sandbox)) return describe(status)
      throw new AmbitError('ENROLL_UNKNOWN_POD', `No pod ${uidOf(request)} is registered on this node.`)
    }
    case 'sweep':
      target.changed()
      return {}
    default:
      throw new AmbitError('ENROLL_UNKNOWN_OP', `There is no operation ${JSON.stringify(request['op'])}.`, {
        hint: 'Use add, del, list, check or sweep.',
      })
  }
}

function parse(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // Said below.
  }
  throw new AmbitError('ENROLL_BAD_REQUEST', 'A request is one JSON object on one line.')
}

function uidOf(request: Record<string, unknown>): string {
  if (typeof request['uid'] === 'string') return request['uid']
  throw new AmbitError('ENROLL_BAD_REQUEST', `'uid' must be text.`)
}

/** The sandbox a request is about; undefined if it is about the pod whichever it has. */
function sandboxOf(request: Record<string, unknown>): string | undefined {
  const sandbox = request['sandbox']
  if (sandbox === undefined || typeof sandbox === 'string') return sandbox
  throw new AmbitError('ENROLL_BAD_REQUEST', `'sandbox' must be text.`)
}

function describe({ pod, phase, reason }: PodStatus): object {
  const { uid, namespace, name, netns, addresses } = pod
  return { uid, namespace, name, netns, addresses, phase, enrolled: phase === 'captured', reason }
}
