// Agents as control sees them: real delta xDS streams over connections and tokens of their own, every response acknowledged. They
// read the envelope of a response and let go of what is in it, so that a hundred of them fit beside what is measured. Must not
// live here: what is changed and measured (suite.ts).
import { create, toBinary } from '@bufbuild/protobuf'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import { Client, credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js'
import { encodeClientNode } from '../../../agent/wire/client-node.ts'
import { agentKinds } from '../../../agent/wire/contract.ts'
import { MORE } from '../../../agent/wire/encoded.ts'
import {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
} from '../../../agent/wire/gen/envoy/service/discovery/v3/ads_pb.js'
import { methodDefinition } from '../../../agent/wire/grpc.ts'
import { typeUrls } from '../../../agent/wire/types.ts'

const SERVER_NAME = 'control.ambit-system.svc'
const LONGEST_MS = 120_000

/** What a response says of itself. */
interface Envelope {
  readonly version: string
  readonly typeUrl: string
  readonly nonce: string
  readonly names: readonly string[]
}

export class Agents {
  readonly #agents: Agent[] = []
  readonly #waits = new Set<Wait>()
  /** Bytes and resources of all responses. */
  readonly received = { bytes: 0, resources: 0 }
  /** Why streams ended that nobody ended. */
  readonly ended: string[] = []

  get size(): number {
    return this.#agents.length
  }

  /** Opens one for each token; resolves when all of them have everything. Milliseconds from the first to the last. */
  async open(address: string, roots: string, tokens: ReadonlyMap<string, string>): Promise<number> {
    const began = performance.now()
    for (const [node, token] of tokens)
      this.#agents.push(new Agent(address, roots, node, token, this, (names) => this.#heard(names)))
    await within('every agent has everything', Promise.all(this.#agents.map((agent) => agent.synced.promise)))
    return performance.now() - began
  }

  /** From now until the last agent has heard of each of these names (resources as they are called on the wire), in milliseconds. */
  heard(names: readonly string[]): Promise<number> {
    const done = Promise.withResolvers<number>()
    this.#waits.add({ began: performance.now(), left: new Map(names.map((name) => [name, this.size])), done })
    return within(`every agent hears of ${names[0]}`, done.promise)
  }

  close(): void {
    for (const agent of this.#agents.splice(0)) agent.close()
  }

  #heard(names: readonly string[]): void {
    for (const wait of this.#waits) {
      for (const name of names) {
        const left = wait.left.get(name)
        if (left === undefined) continue
        // An agent that hears of one twice counts twice: names are changed once and waited for.
        if (left > 1) wait.left.set(name, left - 1)
        else wait.left.delete(name)
      }
      if (wait.left.size > 0) continue
      this.#waits.delete(wait)
      wait.done.resolve(performance.now() - wait.began)
    }
  }
}

interface Wait {
  readonly began: number
  /** How many agents have not heard of it. */
  readonly left: Map<string, number>
  readonly done: PromiseWithResolvers<number>
}

class Agent {
  readonly synced = Promise.withResolvers<void>()
  readonly #client: Client
  readonly #call: ClientDuplexStream<Buffer, Buffer>
  #missing = new Set<string>(agentKinds.map((kind) => typeUrls[kind]))
  #closed = false

  constructor(
    address: string,
    roots: string,
    node: string,
    token: string,
    all: Agents,
    heard: (names: readonly string[]) => void,
  ) {
    this.#client = new Client(address, credentials.createSsl(Buffer.from(roots)), {
      'grpc.ssl_target_name_override': SERVER_NAME,
      'grpc.default_authority': SERVER_NAME,
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
      'grpc.enable_retries': 0,
      // A connection each, as that many nodes have.
      'grpc.use_local_subchannel_pool': 1,
    })
    const metadata = new Metadata()
    metadata.set('authorization', `Bearer ${token}`)
    const { path } = methodDefinition(AggregatedDiscoveryService.method.deltaAggregatedResources)
    const asIs = (bytes: Buffer): Buffer => bytes
    this.#call = this.#client.makeBidiStreamRequest(path, asIs, asIs, metadata)
    this.#call.on('data', (bytes: Buffer) => {
      const { version, typeUrl, nonce, names } = readEnvelope(bytes)
      all.received.bytes += bytes.length
      all.received.resources += names.length
      this.#send({ typeUrl, responseNonce: nonce })
      if (!version.endsWith(MORE) && this.#missing.delete(typeUrl) && this.#missing.size === 0) this.synced.resolve()
      heard(names)
    })
    const end = (why: string): void => {
      if (this.#closed) return
      all.ended.push(`${node}: ${why}`)
      this.synced.reject(new Error(`the stream of ${node} ended: ${why}`))
    }
    this.#call.on('error', (error) => end(error.message))
    this.#call.on('end', () => end('by control'))
    this.synced.promise.catch(() => undefined)
    const name = `ambit-agent-${node}`
    const self = encodeClientNode({ type: 'agent', address: '', name, namespace: 'ambit-system', node }, 'Kubernetes')
    for (const kind of agentKinds) this.#send({ node: self, typeUrl: typeUrls[kind] })
  }

  close(): void {
    this.#closed = true
    this.#call.cancel()
    this.#client.close()
  }

  #send(request: Parameters<typeof create<typeof DeltaDiscoveryRequestSchema>>[1]): void {
    this.#call.write(Buffer.from(toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, request))))
  }
}

/** Reads a DeltaDiscoveryResponse without its resources' bodies. */
function readEnvelope(bytes: Uint8Array): Envelope {
  const reader = new BinaryReader(bytes)
  let [version, typeUrl, nonce] = ['', '', '']
  const names: string[] = []
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    if (field === 1) version = reader.string()
    else if (field === 2) names.push(readName(reader))
    else if (field === 4) typeUrl = reader.string()
    else if (field === 5) nonce = reader.string()
    else if (field === 6) names.push(reader.string())
    else reader.skip(type)
  }
  return { version, typeUrl, nonce, names }
}

function readName(reader: BinaryReader): string {
  const end = reader.uint32() + reader.pos
  let name = ''
  while (reader.pos < end) {
    const [field, type] = reader.tag()
    if (field === 3) name = reader.string()
    else reader.skip(type)
  }
  return name
}

async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${LONGEST_MS / 1000} s: ${what}`)), LONGEST_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
