// The verdicts of this mesh on connections between captured pods of one node, as tables a kernel can look up. Each entry is
// an answer of authorizeInbound, asked for every client and every port that some policy tells apart, so that kernel and agent
// cannot disagree; where the answer is not one word, there is no entry, and the agent is asked.
// Must not live here: verdicts (inbound.ts), which pods there are and how tables get into the kernel (node/).
import { ipFamily } from '../base/ip.ts'
import { agentPolicies } from './applicable.ts'
import { formatIdentity } from './identity.ts'
import { authorizeInbound } from './inbound.ts'
import { plaintextRefused } from './plaintext-mode.ts'
import type { Policy } from './policy.ts'
import { HBONE_PORT } from './resolve.ts'
import type { MeshView } from './state.ts'
import { identityOf, type Workload } from './workload.ts'

/** Ports a table tells apart. A workload whose policies name more is left to the agent. */
export const MAX_PORTS = 64
/** Entries of a table: 250 clients that differ on all ports. With more it is left to the agent. */
export const MAX_ROWS = 16_384

/** A captured pod of this node whose workload is known. */
export interface CapturedPod {
  /** What tables call it. */
  readonly uid: string
  /** Its own addresses: no other can be the source or the destination of a connection of its. */
  readonly addresses: readonly string[]
  readonly workload: Workload
}

export interface VerdictRow {
  /** Uid of the client; undefined where it makes no difference. */
  readonly client: string | undefined
  /** Undefined: all ports without a row of their own (for this client). */
  readonly port: number | undefined
  readonly verdict: 'allow' | 'deny'
}

/** The verdicts on connections to one pod. What has none is the agent's. */
export interface VerdictTable {
  /** `allow`, `deny`: whoever asks, for any port. `agent`: the table says nothing of TCP. */
  readonly head: 'allow' | 'deny' | 'by_port' | 'by_client' | 'agent'
  /** Empty unless `by_port` or `by_client`; at most one for each client and port. */
  readonly rows: readonly VerdictRow[]
  /** Ports whose UDP is refused, ascending. */
  readonly udpRefused: readonly number[]
}

type Answer = 'allow' | 'deny' | 'agent'
type Tcp = Pick<VerdictTable, 'head' | 'rows'>

const FOR_AGENT: Tcp = { head: 'agent', rows: [] }

/**
 * The tables for one state and one set of pods; both must stay as they are while it is used. Pods whose policies are the same
 * share their rows, clients of one identity their answers.
 */
export class Tabulation {
  readonly #view: MeshView
  readonly #pods: readonly CapturedPod[]
  readonly #shared = new Map<string, Tcp>()

  constructor(view: MeshView, pods: readonly CapturedPod[]) {
    this.#view = view
    this.#pods = pods
  }

  /** The table of one pod as destination. */
  table(pod: CapturedPod): VerdictTable {
    return { ...this.#tcp(pod), udpRefused: udpRefused(this.#view, pod.workload) }
  }

  #tcp(pod: CapturedPod): Tcp {
    const { workload } = pod
    // Behind a waypoint nothing comes straight from a pod; and who asks for tunnels gets them.
    if (workload.waypoint || workload.sameNode === 'tunnel') return FOR_AGENT
    const facts = factsOf(this.#view, workload)
    const key = JSON.stringify([
      workload.namespace,
      workload.authorizationPolicies,
      facts.byDestination ? pod.addresses : [],
    ])
    let known = this.#shared.get(key)
    if (!known) this.#shared.set(key, (known = this.#make(pod, facts)))
    return known
  }

  #make(pod: CapturedPod, facts: Facts): Tcp {
    if (facts.ports.length > MAX_PORTS) return FOR_AGENT
    const ports = [unnamedPort(facts.ports), ...facts.ports]
    const byIdentity = new Map<string, readonly Answer[]>()
    const clients: { readonly uid: string; readonly answers: readonly Answer[] }[] = []
    // A client that wants tunnels has no entry, whatever the others have.
    const whole = this.#pods.every(({ workload }) => workload.sameNode === 'direct')
    for (const client of this.#pods) {
      if (client.workload.sameNode === 'tunnel') continue
      const identity = formatIdentity(identityOf(client.workload))
      const key = facts.bySource ? JSON.stringify([identity, client.addresses]) : identity
      let answers = byIdentity.get(key)
      if (!answers) byIdentity.set(key, (answers = ports.map((port) => this.#ask(pod, client, port, facts))))
      clients.push({ uid: client.uid, answers })
    }
    return compress(clients, facts.ports, whole && new Set(byIdentity.values()))
  }

  /** One word if the agent would say the same whatever addresses the two use. */
  #ask(pod: CapturedPod, client: CapturedPod, port: number, facts: Facts): Answer {
    const identity = identityOf(client.workload)
    let answer: Answer | undefined
    const sources = facts.bySource ? client.addresses : client.addresses.slice(0, 1)
    const destinations = facts.byDestination ? pod.addresses : pod.addresses.slice(0, 1)
    const both = facts.bySource && facts.byDestination
    for (const peerAddress of sources) {
      for (const address of destinations) {
        if (both && ipFamily(peerAddress) !== ipFamily(address)) continue
        const { allowed } = authorizeInbound(this.#view, pod.workload, { peerAddress, identity, address, port })
        const said = allowed ? 'allow' : 'deny'
        if (answer !== undefined && answer !== said) return 'agent'
        answer = said
      }
    }
    return answer ?? 'agent'
  }
}

/** What of a connection the policies of a workload ask for, beside the client's identity. */
interface Facts {
  /** Ports they name, ascending; without the tunnel's, which is never the app's. */
  readonly ports: readonly number[]
  /** They name addresses of clients. */
  readonly bySource: boolean
  /** They name addresses of the workload. */
  readonly byDestination: boolean
}

function factsOf(view: MeshView, workload: Workload): Facts {
  const ports = new Set<number>()
  let bySource = false
  let byDestination = false
  for (const policy of agentPolicies(view, workload).policies) {
    const facts = policyFacts(policy)
    for (const port of facts.ports) ports.add(port)
    bySource ||= facts.bySource
    byDestination ||= facts.byDestination
  }
  return { ports: [...ports].sort((a, b) => a - b), bySource, byDestination }
}

const known = new WeakMap<Policy, Facts>()

function policyFacts(policy: Policy): Facts {
  let facts = known.get(policy)
  if (!facts) known.set(policy, (facts = readFacts(policy)))
  return facts
}

function readFacts(policy: Policy): Facts {
  const ports = new Set<number>()
  let bySource = false
  let byDestination = false
  for (const { clauses } of policy.rules) {
    for (const { matches } of clauses) {
      for (const match of matches) {
        for (const port of [...(match.destinationPorts ?? []), ...(match.notDestinationPorts ?? [])]) {
          if (port > 0 && port < 65_536 && port !== HBONE_PORT) ports.add(port)
        }
        bySource ||= match.sourceIps !== undefined || match.notSourceIps !== undefined
        byDestination ||= match.destinationIps !== undefined || match.notDestinationIps !== undefined
      }
    }
  }
  return { ports: [...ports], bySource, byDestination }
}

/** A port that stands for all that no policy names. */
function unnamedPort(ports: readonly number[]): number {
  let port = 1
  while (ports.includes(port) || port === HBONE_PORT) port++
  return port
}

/**
 * The fewest rows that say it. `answers[0]` is about all ports without a name, the others about `ports`. `same`: the different
 * answers there are, where all pods are among the clients.
 */
function compress(
  clients: readonly { readonly uid: string; readonly answers: readonly Answer[] }[],
  ports: readonly number[],
  same: ReadonlySet<readonly Answer[]> | false,
): Tcp {
  const [first, ...others] = same ? [...same] : []
  if (first && others.every((other) => other.every((answer, i) => answer === first[i]))) {
    const [any] = first
    if (any && any !== 'agent' && first.every((answer) => answer === any)) return { head: any, rows: [] }
    const rows = rowsOf(undefined, first, ports)
    return rows.length === 0 ? FOR_AGENT : { head: 'by_port', rows }
  }
  const rows: VerdictRow[] = []
  for (const { uid, answers } of clients) {
    rows.push(...rowsOf(uid, answers, ports))
    if (rows.length > MAX_ROWS) return FOR_AGENT
  }
  return rows.length === 0 ? FOR_AGENT : { head: 'by_client', rows }
}

/** A port without a row falls back to the row for all others: there is none if a port is the agent's. */
function rowsOf(client: string | undefined, answers: readonly Answer[], ports: readonly number[]): VerdictRow[] {
  const rows: VerdictRow[] = []
  const rest = answers.includes('agent') ? 'agent' : (answers[0] as Answer)
  if (rest !== 'agent') rows.push({ client, port: undefined, verdict: rest })
  for (const [index, port] of ports.entries()) {
    const verdict = answers[index + 1] as Answer
    if (verdict !== 'agent' && verdict !== rest) rows.push({ client, port, verdict })
  }
  return rows
}

/** Ports that services lead to, where plaintext is refused: nothing carries UDP, so that it is refused there too. */
function udpRefused(view: MeshView, workload: Workload): readonly number[] {
  const ports = new Set<number>()
  for (const targets of Object.values(workload.services)) for (const port of Object.values(targets)) ports.add(port)
  return [...ports].filter((port) => port > 0 && plaintextRefused(view, workload, port)).sort((a, b) => a - b)
}
