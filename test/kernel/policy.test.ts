// One verdict in two places: random policies over real pods, compiled into the kernel's tables by the code that serves, and the
// kernel asked by BPF_PROG_TEST_RUN and by connections; what it says is what authorizeInbound says, or it leaves it to the agent.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../agent/base/clock.ts'
import { openLog } from '../../agent/base/log.ts'
import { authorizeInbound } from '../../agent/mesh/inbound.ts'
import { namedPorts, sampleNode, type SampleNode } from '../../agent/mesh/policy-samples.ts'
import { identityOf } from '../../agent/mesh/workload.ts'
import { emptyNote, kernelAddress, noteKinds } from '../../agent/node/redirect/notes.ts'
import { loadLookup, type LookupModule } from '../../agent/node/redirect/programs.ts'
import { TableSync } from '../../agent/node/tables/sync.ts'
import { netnsCookie } from '../../native/bpf/index.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

const PODS = 4
const SK_PASS = 1
/** enum refusal of bpf/lib/notes.h, as the program leaves it on the flow. */
const refusals = ['nothing', 'denied', 'no verdict'] as const
const TCP = 6
/** A port that no policy names. */
const OTHER = 7777
const ports = [...namedPorts, OTHER]
const log = openLog({ program: 'test', level: 'silent' })

describe('the kernel’s verdict', () => {
  let node: TestNode
  const pods: Pod[] = []
  const apps: Sockets[] = []
  const captured: Captured[] = []
  const cookies: bigint[] = []
  const lookups: LookupModule[] = []
  /** Listening sockets of each pod, by port. */
  const listening: Map<number, number>[] = []

  beforeAll(async () => {
    node = await TestNode.open()
    for (let i = 0; i < PODS; i++) {
      const pod = node.world.pod()
      pods.push(pod)
      captured.push(await node.capture(pod))
      const cookie = netnsCookie(pod.netns)
      cookies.push(cookie)
      // A copy of the pod's own program, on the same maps.
      lookups.push(await loadLookup(node.world.pinRoot, cookie))
      const app = node.world.sockets(pod)
      apps.push(app)
      const sockets = new Map<number, number>()
      for (const port of ports) {
        sockets.set(port, (await app.must('listen', { family: 6, bind: '::', source: port })).socket!)
      }
      listening.push(sockets)
    }
  })

  afterAll(async () => {
    for (const lookup of lookups) lookup.close()
    await node.close()
  })

  const sample = (): fc.Arbitrary<SampleNode> =>
    sampleNode(PODS, (number) => [(pods[number] as Pod).v4, (pods[number] as Pod).v6])

  /** Puts the tables of a sample into the kernel, as the agent does. */
  async function compile({ state, pods: wanted }: SampleNode): Promise<void> {
    const sync = new TableSync({
      node: 'node1',
      writer: node.redirect.tables,
      view: () => state,
      clock: systemClock,
      log,
    })
    for (const [number, { addresses, workload }] of wanted.entries()) {
      const { name, netns } = pods[number] as Pod
      sync.addPod({ uid: name, netns, namespace: workload.namespace, name: workload.name, addresses })
    }
    sync.changed()
    await sync.settled()
    expect(sync.status()).toMatchObject({ synced: true, failures: 0 })
    await sync.close()
  }

  const address = (pod: number, family: 4 | 6): string => (family === 4 ? pods[pod]!.v4 : pods[pod]!.v6)

  function meshSays({ state, pods: all }: SampleNode, client: number, server: number, port: number, family: 4 | 6) {
    return authorizeInbound(state, all[server]!.workload, {
      peerAddress: address(client, family),
      identity: identityOf(all[client]!.workload),
      address: address(server, family),
      port,
    })
  }

  /** What the server's program says of a connection that the kernel attests to be the client's. */
  function lookUp(
    client: number,
    server: number,
    port: number,
    family: 4 | 6,
  ): 'allowed' | (typeof refusals)[number] | undefined {
    const { maps, programs } = lookups[server]!
    const [from, to] = [address(client, family), address(server, family)]
    const key = {
      cookie: 0n,
      source: kernelAddress(from),
      destination: kernelAddress(to),
      source_port: 45_678,
      destination_port: port,
    }
    maps.ambit_flows.set(key, {
      ...emptyNote,
      address: key.destination,
      port,
      kind: noteKinds.direct,
      client: cookies[client]!,
    })
    try {
      const { returned } = programs.ambit_lookup.testRun({ context: lookupContext(from, 45_678, to, port) })
      return returned === SK_PASS ? 'allowed' : refusals[maps.ambit_flows.get(key)?.refusal ?? 0]
    } finally {
      maps.ambit_flows.delete(key)
    }
  }

  it('on an attested connection is the mesh’s, or no: whatever the policies', async () => {
    const seen: Record<string, number> = { allowed: 0, denied: 0, 'no verdict': 0 }
    await fc.assert(
      fc.asyncProperty(sample(), async (one) => {
        await compile(one)
        for (let client = 0; client < PODS; client++) {
          for (let server = 0; server < PODS; server++) {
            for (const port of ports) {
              for (const family of [4, 6] as const) {
                const { allowed, reason } = meshSays(one, client, server, port, family)
                const said = lookUp(client, server, port, family)
                const what = `${client} to ${server}:${port} over IPv${family}: ${reason}`
                expect(['no verdict', allowed ? 'allowed' : 'denied'], what).toContain(said)
                seen[said!]!++
              }
            }
          }
        }
      }),
      { numRuns: 40 },
    )
    const all = Object.values(seen).reduce((sum, count) => sum + count, 0)
    for (const answer of ['allowed', 'denied', 'no verdict']) expect(seen[answer]! / all, answer).toBeGreaterThan(0.05)
  })

  it('on a connection is the mesh’s, or the agent gets it', async () => {
    const connection = fc.record({
      client: fc.nat(PODS - 1),
      server: fc.nat(PODS - 1),
      port: fc.constantFrom(...ports),
      family: fc.constantFrom(4 as const, 6 as const),
    })
    const seen = { direct: 0, refused: 0, agent: 0 }
    await fc.assert(
      fc.asyncProperty(sample(), fc.array(connection, { minLength: 6, maxLength: 6 }), async (one, connections) => {
        await compile(one)
        for (const { client, server, port, family } of connections) {
          // Within a pod nothing is judged.
          if (client === server) continue
          const { allowed, reason } = meshSays(one, client, server, port, family)
          const what = `${client} to ${server}:${port} over IPv${family}: ${reason}`
          const before = node.redirect.counters()
          const answer = await apps[client]!.call('connect', { family, to: address(server, family), port })
          const after = node.redirect.counters()
          const grown = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0)
          if (grown('redirected') > 0) {
            seen.agent++
            const accepted = await captured[client]!.outbound.next()
            expect(accepted.original, what).toMatchObject({ address: address(server, family), port })
            accepted.connection.abort('cancel')
            if (answer.socket !== undefined) await apps[client]!.must('close', { socket: answer.socket })
            continue
          }
          expect(grown('direct'), what).toBe(1)
          expect(answer.error, what).toBe(allowed ? undefined : 'ECONNREFUSED')
          expect(grown(allowed ? 'attested' : 'dropped.policy_denied'), what).toBe(1)
          seen[allowed ? 'direct' : 'refused']++
          if (!allowed) continue
          // It is the app that has it, and it sees the client.
          const accepted = await apps[server]!.must('accept', { socket: listening[server]!.get(port) })
          expect(accepted.address).toBe(family === 4 ? `::ffff:${address(client, 4)}` : address(client, 6))
          await apps[server]!.must('close', { socket: accepted.socket })
          await apps[client]!.must('close', { socket: answer.socket })
        }
      }),
      { numRuns: 40 },
    )
    for (const outcome of ['direct', 'refused', 'agent'] as const) expect(seen[outcome], outcome).toBeGreaterThan(5)
  })
})

/** struct bpf_sk_lookup (linux/bpf.h): addresses and the remote port in network order. */
function lookupContext(remote: string, remotePort: number, local: string, localPort: number): Uint8Array {
  const AF_INET = 2
  const AF_INET6 = 10
  const bytes = new Uint8Array(72)
  const view = new DataView(bytes.buffer)
  const six = remote.includes(':')
  const part = (text: string): Uint8Array => kernelAddress(text).bytes.subarray(six ? 0 : 12)
  view.setUint32(8, six ? AF_INET6 : AF_INET, true)
  view.setUint32(12, TCP, true)
  bytes.set(part(remote), six ? 20 : 16)
  view.setUint16(36, remotePort, false)
  bytes.set(part(local), six ? 44 : 40)
  view.setUint32(60, localPort, true)
  return bytes
}
