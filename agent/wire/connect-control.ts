// One connection to control for a whole program: the delta xDS stream that feeds a MeshState, the last good state on
// disk, and the CA, over one gRPC channel. Must not live here: protocol steps (xds-client.ts), what resources mean.
import { readFileSync } from 'node:fs'
import { create } from '@bufbuild/protobuf'
import { Client, credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js'
import type { Timer } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import { formatIdentity } from '../mesh/identity.ts'
import { encodeClientNode } from './client-node.ts'
import type {
  ConnectControlOptions,
  ControlConnection,
  ControlStatus,
  HeldResource,
  ResourceKind,
  SignRequest,
} from './contract.ts'
import { feedState } from './feed.ts'
import {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from './gen/envoy/service/discovery/v3/ads_pb.js'
import {
  IstioCertificateRequestSchema,
  IstioCertificateService,
  type IstioCertificateRequest,
  type IstioCertificateResponse,
} from './gen/istio/v1/auth/citadel_pb.js'
import { fromStatus, methodDefinition } from './grpc.ts'
import { loadLastGood, saveLastGood } from './last-good.ts'
import { XdsClient, type DeltaStream, type DeltaStreamEvents } from './xds-client.ts'

const deltaMethod = methodDefinition(AggregatedDiscoveryService.method.deltaAggregatedResources)
const createMethod = methodDefinition(IstioCertificateService.method.createCertificate)

/** As ztunnel's; the server's responses are 4 MB. */
const MAX_RESPONSE_BYTES = 200 * 1024 * 1024
const SIGN_TIMEOUT_MS = 10_000
/** The state is written this long after a change: many come together. */
const SAVE_DELAY_MS = 1_000
/** And so long after it could not be written: the disk may have room again. */
const SAVE_AGAIN_MS = 10_000

/** Connects and keeps connected; never rejects for control being away (see status and synced). */
export async function connectControl(options: ConnectControlOptions): Promise<ControlConnection> {
  const connection = new Connection(options)
  await connection.restore()
  connection.start()
  return connection
}

class Connection implements ControlConnection {
  readonly #options: ConnectControlOptions
  readonly #xds: XdsClient
  #client: Client | undefined
  #clientRoots = ''
  #saveTimer: Timer | undefined
  #saveFailed = false
  #closed = false
  #saving: Promise<void> = Promise.resolve()
  restored = false

  constructor(options: ConnectControlOptions) {
    this.#options = options
    const sink = feedState(options)
    this.#xds = new XdsClient({
      kinds: options.kinds,
      node: encodeClientNode(options.node, options.clusterId ?? 'Kubernetes'),
      sink: {
        ...sink,
        applied: (kind) => {
          sink.applied(kind)
          this.#saveSoon()
        },
      },
      clock: options.clock,
      log: options.log,
      ...(options.random ? { random: options.random } : {}),
      open: (events) => this.#open(events),
    })
  }

  async restore(): Promise<void> {
    const { lastGoodFile, log } = this.#options
    if (lastGoodFile === undefined) return
    try {
      const state = await loadLastGood(lastGoodFile)
      if (!state) return
      let resources = 0
      // In the order of the kinds: settings and policies before the workloads that refer to them.
      for (const kind of this.#options.kinds) {
        for (const [name, resource] of state.get(kind) ?? []) {
          if (this.#xds.restore(kind, name, resource)) resources++
          else log.warn({ kind, name }, 'a resource of the last good state cannot be used')
        }
      }
      this.restored = resources > 0
      log.info({ resources }, 'last good state loaded')
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'starting without a last good state')
    }
  }

  start(): void {
    this.#xds.start()
  }

  synced(kind?: ResourceKind): Promise<void> {
    return this.#xds.synced(kind)
  }

  status(): ControlStatus {
    const { connected, lastResponse, error, reconnects } = this.#xds
    const kinds = this.#xds.status()
    return { address: this.#options.address, connected, lastResponse, error, reconnects, kinds }
  }

  held(kind: ResourceKind): ReadonlyMap<string, HeldResource> {
    return this.#xds.held(kind)
  }

  async sign(request: SignRequest): Promise<readonly string[]> {
    const { address, node } = this.#options
    const identity = formatIdentity(request.identity)
    const message = create(IstioCertificateRequestSchema, {
      csr: request.csr,
      validityDuration: BigInt(Math.round(request.validitySeconds)),
      // A waypoint asks for what its token says it is.
      ...(node.type === 'agent' ? { metadata: { ImpersonatedIdentity: identity } } : {}),
    })
    const client = this.#channel()
    const metadata = this.#metadata()
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest<IstioCertificateRequest, IstioCertificateResponse>(
        createMethod.path,
        createMethod.requestSerialize as (value: IstioCertificateRequest) => Buffer,
        createMethod.responseDeserialize as (bytes: Buffer) => IstioCertificateResponse,
        message,
        metadata,
        { deadline: Date.now() + SIGN_TIMEOUT_MS },
        (error, response) => {
          if (error) reject(fromStatus(error, address))
          else resolve(response?.certChain ?? [])
        },
      )
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#saveTimer?.cancel()
    const pending = this.#saveTimer !== undefined
    this.#xds.close()
    this.#client?.close()
    if (pending) this.#save()
    await this.#saving
  }

  #open(events: DeltaStreamEvents): DeltaStream {
    const { address } = this.#options
    const call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse> =
      this.#channel().makeBidiStreamRequest(
        deltaMethod.path,
        deltaMethod.requestSerialize as (value: DeltaDiscoveryRequest) => Buffer,
        deltaMethod.responseDeserialize as (bytes: Buffer) => DeltaDiscoveryResponse,
        this.#metadata(),
      )
    call.on('data', (response: DeltaDiscoveryResponse) => events.onResponse(response))
    call.on('error', (error) => events.onEnd(fromStatus(error, address)))
    call.on('end', () => events.onEnd(undefined))
    return {
      send: (request) => call.write(create(DeltaDiscoveryRequestSchema, request)),
      cancel: () => call.cancel(),
    }
  }

  /** The token is read every time: kubelet replaces the file long before it expires. */
  #metadata(): Metadata {
    const metadata = new Metadata()
    const token = readText(this.#options.tokenFile, 'CONTROL_TOKEN_UNREADABLE', 'The token for control').trim()
    metadata.set('authorization', `Bearer ${token}`)
    metadata.set('clusterid', this.#options.clusterId ?? 'Kubernetes')
    return metadata
  }

  /** The channel, made anew when the root certificates have changed. */
  #channel(): Client {
    const { address, rootCertFile, state, serverName = 'control.ambit-system.svc' } = this.#options
    const file = readText(rootCertFile, 'CONTROL_ROOT_UNREADABLE', 'The root certificate of control')
    // The kubelet brings a file with new roots minutes after control has told of them.
    const roots = `${file}\n${state.settings.trustBundle}`
    if (this.#client && roots === this.#clientRoots) return this.#client
    this.#client?.close()
    this.#clientRoots = roots
    this.#client = new Client(address, credentials.createSsl(Buffer.from(roots)), {
      'grpc.ssl_target_name_override': serverName,
      'grpc.default_authority': serverName,
      'grpc.max_receive_message_length': MAX_RESPONSE_BYTES,
      // Retries would keep every written message of the long-lived stream in memory.
      'grpc.enable_retries': 0,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
      // Each connection to control is this program's own.
      'grpc.use_local_subchannel_pool': 1,
    })
    return this.#client
  }

  #saveSoon(delayMs = SAVE_DELAY_MS): void {
    if (this.#options.lastGoodFile === undefined || this.#saveTimer || this.#closed) return
    this.#saveTimer = this.#options.clock.after(delayMs, () => this.#save(), true)
  }

  #save(): void {
    this.#saveTimer = undefined
    const { lastGoodFile, kinds, log } = this.#options
    if (lastGoodFile === undefined) return
    this.#saving = this.#saving.then(async () => {
      const state = new Map(
        kinds.map((kind): [ResourceKind, ReadonlyMap<string, HeldResource>] => [kind, this.#xds.held(kind)]),
      )
      try {
        await saveLastGood(lastGoodFile, state)
        if (this.#saveFailed) log.info('last good state written again')
        this.#saveFailed = false
      } catch (error) {
        // Once: every change would say it again.
        if (!this.#saveFailed)
          log.warn({ code: 'STATE_NOT_WRITTEN', error: messageOf(error) }, 'last good state not written')
        this.#saveFailed = true
        this.#saveSoon(SAVE_AGAIN_MS)
      }
    })
  }
}

function readText(file: string, code: string, what: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new AmbitError(code, `${what} cannot be read: ${messageOf(error)}`, {
      hint: `The file ${file} must exist and be readable.`,
      cause: error,
    })
  }
}
