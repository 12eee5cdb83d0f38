// gRPC through the waypoint, spoken by @grpc/grpc-js at both ends: the four kinds of calls message by message, statuses from the
// app and from the waypoint itself, deadlines, cancellation.
import * as grpc from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { World } from './testing.ts'

const plain = (value: Buffer): Buffer => value
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/shop.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: plain,
  requestDeserialize: plain,
  responseSerialize: plain,
  responseDeserialize: plain,
})
const Echo = {
  unary: method('Unary', false, false),
  collect: method('Collect', true, false),
  spread: method('Spread', false, true),
  chat: method('Chat', true, true),
} satisfies grpc.ServiceDefinition

type Call<T> = T extends 'unary' ? grpc.ServerUnaryCall<Buffer, Buffer> : grpc.ServerDuplexStream<Buffer, Buffer>
interface App {
  unary?: (call: Call<'unary'>, done: grpc.sendUnaryData<Buffer>) => void
  collect?: (call: grpc.ServerReadableStream<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => void
  spread?: (call: grpc.ServerWritableStream<Buffer, Buffer>) => void
  chat?: (call: Call<'chat'>) => void
}

let world: World

beforeEach(async () => {
  world = await World.open()
})
afterEach(() => world.close())

async function serve(app: App): Promise<void> {
  world.setService('grpc')
  const server = new grpc.Server()
  server.addService(Echo, app as grpc.UntypedServiceImplementation)
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${world.address(10)}:0`, grpc.ServerCredentials.createInsecure(), (error, bound) => {
      if (error) reject(error)
      else resolve(bound)
    })
  })
  world.onClose(() => server.forceShutdown())
  await world.endpoint(10, port)
}

async function client(): Promise<grpc.Client> {
  const made = new grpc.Client(`127.0.0.1:${await world.dial()}`, grpc.credentials.createInsecure(), {
    'grpc.default_authority': 'api',
    'grpc.enable_retries': 0,
    'grpc.max_receive_message_length': 64 << 20,
  })
  world.onClose(() => made.close())
  return made
}

interface Told {
  readonly error: grpc.ServiceError | null
  readonly reply: string
  readonly trailers: grpc.Metadata
  readonly head: grpc.Metadata
}

function unary(
  from: grpc.Client,
  message: Buffer | string,
  options: grpc.CallOptions = {},
  metadata = new grpc.Metadata(),
) {
  return new Promise<Told>((resolve) => {
    let head = new grpc.Metadata()
    let trailers = new grpc.Metadata()
    let outcome: [grpc.ServiceError | null, string] | undefined
    const call = from.makeUnaryRequest(
      Echo.unary.path,
      plain,
      plain,
      Buffer.from(message),
      metadata,
      options,
      (error, reply) => {
        outcome = [error, reply?.toString('latin1') ?? '']
      },
    )
    call.on('metadata', (given) => (head = given))
    call.on('status', (status) => {
      trailers = status.metadata
      setImmediate(() => resolve({ error: outcome?.[0] ?? null, reply: outcome?.[1] ?? '', trailers, head }))
    })
  })
}

describe('a call', () => {
  it('with one message each way carries metadata, binary too, and trailing metadata', async () => {
    await serve({
      unary(call, done) {
        const head = new grpc.Metadata()
        head.set('x-seen', call.metadata.get('x-mine')[0] as string)
        head.set('x-bytes-bin', Buffer.from(call.metadata.get('x-mine-bin')[0] as Buffer))
        call.sendMetadata(head)
        const trailers = new grpc.Metadata()
        trailers.set('x-sum', '7')
        done(null, Buffer.concat([Buffer.from('echo '), call.request]), trailers)
      },
    })
    const metadata = new grpc.Metadata()
    metadata.set('x-mine', 'value')
    metadata.set('x-mine-bin', Buffer.from([0, 255, 7]))
    const told = await unary(await client(), 'hello', {}, metadata)
    expect([told.error, told.reply]).toEqual([null, 'echo hello'])
    expect(told.head.get('x-seen')).toEqual(['value'])
    expect(told.head.get('x-bytes-bin')).toEqual([Buffer.from([0, 255, 7])])
    expect(told.trailers.get('x-sum')).toEqual(['7'])
  })

  it('carries messages of megabytes, and a hundred calls at once on one connection', async () => {
    await serve({ unary: (call, done) => done(null, call.request) })
    const from = await client()
    const large = Buffer.alloc(3 << 20, 'x')
    expect((await unary(from, large)).reply.length).toBe(large.length)
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => unary(from, `call ${i}`)))
    expect(all.map(({ reply }) => reply)).toEqual(Array.from({ length: 100 }, (_, i) => `call ${i}`))
  })

  it('whose client streams is answered after its last message, each of which the app sees as it is sent', async () => {
    const seen: string[] = []
    await serve({
      collect(call, done) {
        call.on('data', (message: Buffer) => seen.push(message.toString()))
        call.on('end', () => done(null, Buffer.from(seen.join('+'))))
      },
    })
    const from = await client()
    let call: grpc.ClientWritableStream<Buffer> | undefined
    const reply = new Promise<string>((resolve, reject) => {
      call = from.makeClientStreamRequest(Echo.collect.path, plain, plain, (error, value) => {
        if (error) reject(error)
        else resolve(value?.toString() ?? '')
      })
    })
    for (const message of ['one', 'two', 'three']) {
      call?.write(Buffer.from(message))
      await world.until(() => seen.at(-1) === message)
    }
    call?.end()
    expect(await reply).toBe('one+two+three')
  })

  it('whose app streams shows each message as it is sent, an empty one too', async () => {
    let app: grpc.ServerWritableStream<Buffer, Buffer> | undefined
    await serve({ spread: (call) => void (app = call) })
    const seen: string[] = []
    let ended = false
    const call = (await client()).makeServerStreamRequest(Echo.spread.path, plain, plain, Buffer.from('go'))
    call.on('data', (message: Buffer) => seen.push(message.toString()))
    call.on('end', () => (ended = true))
    await world.until(() => app !== undefined)
    for (const message of ['one', '', 'three']) {
      const before = seen.length
      app?.write(Buffer.from(message))
      await world.until(() => seen.length === before + 1)
    }
    app?.end()
    await world.until(() => ended)
    expect(seen).toEqual(['one', '', 'three'])
  })

  it('in which both stream is a conversation, and either side may end first', async () => {
    await serve({
      chat(call) {
        call.write(Buffer.from('welcome'))
        call.on('data', (message: Buffer) => call.write(Buffer.from(message.toString().toUpperCase())))
        call.on('end', () => {
          call.write(Buffer.from('bye'))
          call.end()
        })
      },
    })
    const seen: string[] = []
    let status: grpc.StatusObject | undefined
    const call = (await client()).makeBidiStreamRequest(Echo.chat.path, plain, plain)
    call.on('data', (message: Buffer) => seen.push(message.toString()))
    call.on('status', (given) => (status = given))
    await world.until(() => seen.length === 1)
    for (const word of ['red', 'green']) {
      call.write(Buffer.from(word))
      await world.until(() => seen.at(-1) === word.toUpperCase())
    }
    call.end()
    await world.until(() => status !== undefined)
    expect([seen, status?.code]).toEqual([['welcome', 'RED', 'GREEN', 'bye'], grpc.status.OK])
  })
})

describe('a status', () => {
  it('of the app arrives as it is: in trailers only, after messages, with a message beyond ASCII', async () => {
    const details = 'nicht gefunden: Ä % ü'
    await serve({
      unary: (_call, done) => done({ code: grpc.status.NOT_FOUND, details }),
      spread(call) {
        call.write(Buffer.from('first'))
        call.emit('error', { code: grpc.status.DATA_LOSS, details: 'then lost' })
      },
    })
    const from = await client()
    expect((await unary(from, 'x')).error).toMatchObject({ code: grpc.status.NOT_FOUND, details })
    const seen: string[] = []
    const call = from.makeServerStreamRequest(Echo.spread.path, plain, plain, Buffer.from('go'))
    call.on('data', (message: Buffer) => seen.push(message.toString()))
    const error = await new Promise((resolve) => call.on('error', resolve))
    expect(seen).toEqual(['first'])
    expect(error).toMatchObject({ code: grpc.status.DATA_LOSS, details: 'then lost' })
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect(await world.metrics.text()).toMatch(/istio_requests_total\{[^}]*grpc_response_status="5"[^}]*\} 1/)
  })

  it('of a method that the app does not have is UNIMPLEMENTED, its own answer', async () => {
    await serve({})
    expect((await unary(await client(), 'x')).error).toMatchObject({ code: grpc.status.UNIMPLEMENTED })
  })

  it('of the waypoint itself is that of its HTTP status, in trailers only', async () => {
    world.setService('grpc')
    const from = await client()
    expect((await unary(from, 'x')).error).toMatchObject({
      code: grpc.status.UNAVAILABLE,
      details: 'no healthy upstream',
    })
    await serve({ unary: (call, done) => done(null, call.request) })
    // A VirtualService none of whose rules matches: 404.
    const nothing = {
      name: '',
      headers: [],
      withoutHeaders: [],
      queryParams: [],
      port: 0,
      sourceNamespace: '',
      sourceLabels: {},
    }
    const elsewhere = { ...nothing, path: { type: 'exact', value: '/elsewhere', ignoreCase: false } } as const
    world.setRoute([{ matches: [elsewhere] }])
    expect((await unary(from, 'x')).error?.code).toBe(grpc.status.UNIMPLEMENTED)
    world.setPolicy({ rules: [] })
    expect((await unary(from, 'x')).error).toMatchObject({
      code: grpc.status.PERMISSION_DENIED,
      details: 'RBAC: access denied',
    })
  })

  it('of an app that dies is UNAVAILABLE before its answer and an error after it began', async () => {
    await serve({
      unary: (call) =>
        (call as unknown as { call: { stream: { session: { destroy(): void } } } }).call.stream.session.destroy(),
      spread(call) {
        call.write(Buffer.from('first'))
        setTimeout(
          () =>
            (call as unknown as { call: { stream: { session: { destroy(): void } } } }).call.stream.session.destroy(),
          30,
        )
      },
    })
    const from = await client()
    expect((await unary(from, 'x')).error?.code).toBe(grpc.status.UNAVAILABLE)
    const call = from.makeServerStreamRequest(Echo.spread.path, plain, plain, Buffer.from('go'))
    const seen: string[] = []
    call.on('data', (message: Buffer) => seen.push(message.toString()))
    const error = await new Promise<grpc.ServiceError>((resolve) => call.on('error', resolve))
    expect(seen).toEqual(['first'])
    expect(error.code).not.toBe(grpc.status.OK)
  })
})

describe('a deadline and a cancellation', () => {
  it('reach the app: it knows how long it has, and is told when the time is over', async () => {
    let timeout = 0
    let cancelled = 0
    await serve({
      unary(call) {
        timeout = Number(call.getDeadline()) - Date.now()
        call.on('cancelled', () => cancelled++)
      },
    })
    const told = await unary(await client(), 'x', { deadline: Date.now() + 300 })
    // The client's own clock, or the waypoint's for the same deadline, whichever is first.
    expect([grpc.status.DEADLINE_EXCEEDED, grpc.status.UNAVAILABLE]).toContain(told.error?.code)
    expect(timeout).toBeGreaterThan(0)
    expect(timeout).toBeLessThanOrEqual(300)
    await world.until(() => cancelled === 1)
    await world.until(() => world.waypoint.pipeline.active === 0)
  })

  it('of a client that gives a stream up reach the app, and leave nothing behind', async () => {
    let cancelled = 0
    await serve({
      chat(call) {
        call.write(Buffer.from('welcome'))
        call.on('cancelled', () => cancelled++)
        call.on('error', () => undefined)
      },
    })
    const call = (await client()).makeBidiStreamRequest(Echo.chat.path, plain, plain)
    const code = new Promise<number>((resolve) => call.on('status', (status) => resolve(status.code)))
    call.on('error', () => undefined)
    call.on('data', () => call.cancel())
    expect(await code).toBe(grpc.status.CANCELLED)
    await world.until(() => cancelled === 1)
    await world.until(() => world.waypoint.pipeline.active === 0)
    for (const cluster of world.waypoint.clusters.all()) await world.until(() => cluster.active === 0)
  })
})
