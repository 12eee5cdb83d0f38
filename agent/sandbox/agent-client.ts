// A client of the agents' local API (one JSON object a line over a unix socket). Must not live here: when to call it.
import { connect } from 'node:net'

export interface AgentPod {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  readonly netns: string
  readonly addresses: readonly string[]
}

export interface AgentAnswer {
  readonly ok: boolean
  readonly code?: string
  readonly message?: string
  readonly enrolled?: boolean
  readonly phase?: string
  readonly reason?: string
  readonly pods?: readonly { readonly uid: string; readonly enrolled: boolean; readonly phase: string }[]
}

/** One request; rejects when the agent does not answer within `timeoutMs`. */
export function askAgent(
  socketPath: string,
  request: { op: 'add' | 'del' | 'list' | 'check' } & Partial<AgentPod>,
  timeoutMs: number,
): Promise<AgentAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath)
    let text = ''
    const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
    socket.on('connect', () => socket.write(`${JSON.stringify(request)}\n`))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      const end = text.indexOf('\n')
      if (end < 0) return
      clearTimeout(timer)
      socket.destroy()
      try {
        resolve(JSON.parse(text.slice(0, end)) as AgentAnswer)
      } catch (error) {
        reject(error as Error)
      }
    })
    socket.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    socket.on('close', () => {
      clearTimeout(timer)
      reject(new Error('the agent closed the connection'))
    })
  })
}
