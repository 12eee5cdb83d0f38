// The programs of this machine that can be asked, by the address of their admin server: the agent of this node, control, nodes of
// the running sandboxes. Must not live here: what they answer (commands/).
import { existsSync, readdirSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { AmbitError } from '../../base/errors.ts'
import { splitHostPort } from '../../base/ip.ts'
import type { Program, ProgramKind } from './source.ts'

/** An admin server that is not there answers at once; one that hangs shall not hang the command. */
const ANSWER_MS = 5_000
/** A node has some thousand pods at most; what it goes by is larger. */
const MAX_ANSWER = 256 << 20

/** Those at the addresses given, else those found below `root` (of one sandbox by its name). */
export function localPrograms(name: string | undefined, root: string, asked: readonly string[] = []): Program[] {
  if (asked.length > 0) return asked.map((address) => program('agent', address, address))
  const found: Program[] = []
  const add = (kind: ProgramKind, what: string, socket: string): void => {
    if (existsSync(socket)) found.push(program(kind, what, `unix:${socket}`))
  }
  if (name === undefined) add('agent', 'this node', join(root, 'admin.sock'))
  for (const sandbox of foldersOf(root)) {
    if (name !== undefined && sandbox !== name) continue
    add('control', 'control', join(root, sandbox, 'control-admin.sock'))
    for (const node of foldersOf(join(root, sandbox, 'nodes')))
      add('agent', node, join(root, sandbox, 'nodes', node, 'admin.sock'))
  }
  return found
}

function program(kind: ProgramKind, name: string, address: string): Program {
  return { kind, name, also: [address], address, ask: (path) => askAdmin(address, path) }
}

function foldersOf(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))
  } catch {
    return []
  }
}

/** GET of an admin server (`unix:PATH` or `HOST:PORT`) as JSON. Throws CLI_AGENT_ADDRESS, CLI_AGENT_UNREACHABLE. */
export async function askAdmin(address: string, path: string): Promise<unknown> {
  return parseAnswer(address, path, 200, await get(address, path))
}

/** An answer's body as JSON. Throws CLI_AGENT_UNREACHABLE for another status, and for what is no JSON. */
export function parseAnswer(address: string, path: string, status: number, body: string): unknown {
  if (status !== 200) throw unreachable(address, `it answers ${path} with status ${status}`)
  try {
    return JSON.parse(body) as unknown
  } catch {
    throw unreachable(address, `its answer to ${path} is no JSON: another program listens there, or an older agent`)
  }
}

function get(address: string, path: string): Promise<string> {
  const socketPath = address.startsWith('unix:') ? address.slice('unix:'.length) : undefined
  const target = socketPath === undefined ? splitHostPort(address) : undefined
  if (socketPath === undefined && !target) {
    throw new AmbitError('CLI_AGENT_ADDRESS', `'${address}' is no address of an agent.`, {
      hint: 'Write unix:PATH or HOST:PORT, as the agent was given by --admin.',
    })
  }
  const where = socketPath === undefined ? { host: target?.host, port: target?.port } : { socketPath }
  return new Promise((resolve, reject) => {
    const asked = request({ ...where, path, timeout: ANSWER_MS }, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        if ((length += chunk.length) > MAX_ANSWER) asked.destroy(new Error('it answers without end'))
      })
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString('utf8'))
        else reject(unreachable(address, `it answers ${path} with status ${response.statusCode ?? 0}`))
      })
      response.on('error', (error) => reject(unreachable(address, error.message)))
    })
    asked.on('timeout', () => asked.destroy(new Error(`it does not answer within ${ANSWER_MS} ms`)))
    asked.on('error', (error) => reject(unreachable(address, error.message)))
    asked.end()
  })
}

function unreachable(address: string, why: string): AmbitError {
  return new AmbitError('CLI_AGENT_UNREACHABLE', `The agent at ${address} cannot be asked: ${why}.`, {
    hint: 'Does it run, and is this the address of its --admin? It listens for this machine only.',
  })
}
