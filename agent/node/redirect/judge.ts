// Open connections of a pod, judged in its namespace: the kernel ends direct ones by its tables, and those that nobody judged
// when they were made by the word of the agent. Must not live here: that word, and when it is asked for (../revoke).
import { codec, type BpfMap, type Program } from '../../../native/bpf/index.ts'
import { OpenSocket } from '../../../native/bpf/gen/judge.ts'
import { formatIp } from '../../base/ip.ts'
import type { JudgedOpen, OlderConnection } from './contract.ts'

/** Sockets told of at one run: 56 bytes each, some 1.2 million. Beyond it the run fails with E2BIG. */
const MAX_BYTES = 64 << 20

export interface JudgePrograms {
  readonly program: Program
  readonly condemned: BpfMap<bigint, number>
}

export async function judgeOpen(
  { program, condemned }: JudgePrograms,
  netns: number,
  allowed: (older: OlderConnection) => boolean,
): Promise<JudgedOpen> {
  const run = async (): Promise<OpenSocket[]> => {
    const bytes = await program.iterateAsync({ netns, maxBytes: MAX_BYTES })
    return codec.decode(codec.array(OpenSocket, bytes.length / OpenSocket.size), bytes)
  }
  const sockets = await run()
  const ports = new Set<number>()
  for (const { listens, local_port } of sockets) if (listens === 1) ports.add(local_port)
  // What the pod dialled itself has a port of its own that nobody listens on; it is left alone.
  const older = sockets.filter(({ listens, local_port }) => listens === 0 && ports.has(local_port))
  const ended = older.filter((one) => !allowed(connectionOf(one))).map(({ cookie }) => cookie)
  if (ended.length === 0) return { left: older.length, ended: 0 }
  const room = ended.slice(0, condemned.shape.maxEntries)
  condemned.setMany(room.map((cookie) => [cookie, 1]))
  try {
    await run()
  } finally {
    condemned.deleteMany(room)
  }
  return { left: older.length - room.length, ended: room.length }
}

function connectionOf(socket: OpenSocket): OlderConnection {
  return {
    client: { address: formatIp(socket.remote.bytes), port: socket.remote_port },
    local: { address: formatIp(socket.local.bytes), port: socket.local_port },
  }
}
