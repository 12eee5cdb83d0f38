// What goes over a node's link, taken down with tcpdump and searched. Must not live here: what to look for (demo.ts, tests).
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AmbitError } from '../base/errors.ts'
import type { NodeLayout } from './layout.ts'
import { NETNS_ROOT } from './world/run.ts'

const HBONE_PORT = 15008
/** pcap's fixed sizes (pcap-savefile(5)): file header, packet header. */
const FILE_HEADER = 24
const PACKET_HEADER = 16
const ETHERNET = 14

export class Capture {
  readonly file: string
  readonly #child: ChildProcess

  private constructor(file: string, child: ChildProcess) {
    this.file = file
    this.#child = child
  }

  /** Begins to take down every packet of a node's link (eth0, towards the other nodes), whole. */
  static async start(folder: string, node: NodeLayout, label = ''): Promise<Capture> {
    const file = join(folder, `capture-${node.name}${label}.pcap`)
    const child = spawn(
      'nsenter',
      [
        `--net=${NETNS_ROOT}/${node.netns}`,
        '--',
        'tcpdump',
        '-i',
        'eth0',
        '-s',
        '0',
        '-U',
        // Else the last packets wait up to a second in a block that is lost at the end.
        '--immediate-mode',
        '-B',
        '32768',
        '-Z',
        'root',
        '-w',
        file,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
    )
    let said = ''
    await new Promise<void>((resolve, reject) => {
      child.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString()
        if (said.includes('listening on')) resolve()
      })
      const fail = (): void =>
        reject(
          new AmbitError('SANDBOX_NO_CAPTURE', `tcpdump could not listen on ${node.name}: ${said.trim()}`, {
            hint: 'apt-get install tcpdump',
          }),
        )
      child.once('error', fail)
      child.once('exit', fail)
    })
    return new Capture(file, child)
  }

  /** Ends it; what was seen is in the file then. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    // What has just been sent must have been written.
    await new Promise((resolve) => setTimeout(resolve, 300))
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGINT')
    await exited
  }

  /** How often the text occurs in any packet. */
  count(text: string): number {
    const bytes = readFileSync(this.file)
    let found = 0
    for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) found++
    return found
  }

  /** TLS 1.3 application-data records (type 23, RFC 8446 section 5.1) that begin a segment to or from port 15008. */
  tlsRecords(): number {
    const bytes = readFileSync(this.file)
    let found = 0
    for (let at = FILE_HEADER; at + PACKET_HEADER <= bytes.length;) {
      const length = bytes.readUInt32LE(at + 8)
      const payload = tcpPayload(bytes.subarray(at + PACKET_HEADER, at + PACKET_HEADER + length))
      if (payload && payload.length >= 5 && payload[0] === 23 && payload[1] === 3 && payload[2] === 3) found++
      at += PACKET_HEADER + length
    }
    return found
  }
}

/** The payload of a TCP segment to or from the HBONE port, of either IP version. */
function tcpPayload(frame: Buffer): Buffer | undefined {
  if (frame.length < ETHERNET + 40) return undefined
  const type = frame.readUInt16BE(12)
  let at = ETHERNET
  let end: number
  if (type === 0x0800) {
    if (frame[at + 9] !== 6) return undefined
    end = at + frame.readUInt16BE(at + 2)
    at += (frame[at]! & 0x0f) * 4
  } else if (type === 0x86dd) {
    if (frame[at + 6] !== 6) return undefined
    end = at + 40 + frame.readUInt16BE(at + 4)
    at += 40
  } else return undefined
  if (frame.length < at + 20) return undefined
  if (frame.readUInt16BE(at) !== HBONE_PORT && frame.readUInt16BE(at + 2) !== HBONE_PORT) return undefined
  return frame.subarray(at + (frame[at + 12]! >> 4) * 4, Math.min(end, frame.length))
}
