// Agents that can be asked, by the address of their admin server: those named, those of the running sandboxes, that of this
// node. Must not live here: what they answer (commands/).
import { existsSync, readdirSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { AmbitError } from '../base/errors.ts'
import { splitHostPort } from '../base/ip.ts'
import { RUN_ROOT } from './running.ts'

/** An admin server that is not there answers at once; one that hangs shall not hang the command. */
const ANSWER_MS = 5_000
/** A node has some thousand pods at most. */
const MAX_ANSWER = 16 << 20

/** Admin addresses, as `unix:PATH`: of the agent of this node, and of the sandboxes' nodes (of one sandbox by its name). */
export function localAgents(name: string | undefined, root: string = RUN_ROOT): string[] {
  const found: string[] = []
  const own = join(root, 'admin.sock')
  if (name === undefined && existsSync(own)) found.push(`unix:${own}`)
  for (const sandbox of foldersOf(root)) {
    if (name !== undefined && sandbox !== name) continue
    const nodes = join(root, sandbox, 'nodes')
    for (const node of foldersOf(nodes)) {
      const socket = join(nodes, node, 'admin.sock')
      if (existsSync(socket)) found.push(`unix:${socket}`)
    }
  }
  return found
}

function foldersOf(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
      .toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))
  } catch {
    return []
  }
}

/** GET of an admin server (`unix:PATH` or `HOST:PORT`) as JSON. Throws CLI_AGENT_ADDRESS, CLI_AGENT_UNREACHABLE. */
export async function askAgent(address: string, path: string): Promise<unknown> {
  const text = await get(address, path)
  try {
    return JSON.parse(text) as unknown
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
