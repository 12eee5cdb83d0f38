// Attaching on a real kernel: cgroups with order, namespaces, links that are pinned, adopted, replaced.
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { World, type Pod, type Sockets } from '../../test/world/netns.ts'
import {
  cgroupId,
  closeFd,
  codec,
  openNetns,
  openObject,
  openPinnedLink,
  openPinnedProgram,
  socketIn,
  socketName,
  type BpfModule,
} from './index.ts'
import { SampleRun, libbpfSampleSchema } from './gen/test/libbpf_sample.ts'

const sample = join(import.meta.dirname, '../../bpf/build/libbpf_sample.bpf.o')
const PORT = 7777

let world: World
let pod: Pod
let app: Sockets
let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  world = new World()
  pod = world.pod()
  app = world.sockets(pod)
  const object = openObject(sample, libbpfSampleSchema)
  object.rodata.refused_port = PORT
  module = await object.load()
})
afterAll(async () => {
  module.close()
  await world.close()
})

/** What a connect from the pod's cgroup meets: EPERM from a program, ECONNREFUSED from the empty port. */
const dial = async (port: number): Promise<string | undefined> =>
  (await app.call('connect', { to: '127.0.0.1', port })).error

describe('a cgroup link', () => {
  it('acts while it lives and is gone when closed', async () => {
    expect(await dial(PORT)).toBe('ECONNREFUSED')
    const link = module.programs.refuse_connect4.attachCgroup(world.cgroup)
    expect(await dial(PORT)).toBe('EPERM')
    expect(await dial(PORT + 1)).toBe('ECONNREFUSED')
    expect(module.maps.sample_percpu.sum(0)?.packets).toBe(2n)
    expect(link.info()).toMatchObject({ attachType: 10, target: cgroupId(world.cgroup) })
    link.close()
    link.close()
    expect(await dial(PORT)).toBe('ECONNREFUSED')
    expect(() => link.info()).toThrow('is closed')
  })

  it('replaces its program without being taken off', async () => {
    using link = module.programs.refuse_connect4.attachCgroup(world.cgroup)
    const before = link.info()
    link.update(module.programs.refuse_all4)
    expect(await dial(PORT + 1)).toBe('EPERM')
    expect(link.info().id).toBe(before.id)
    expect(link.info().programId).not.toBe(before.programId)
  })

  it('outlives its maker by a pin, and a successor adopts and replaces it', async () => {
    mkdirSync(world.pinRoot, { recursive: true })
    const path = join(world.pinRoot, 'connect4')
    const first = module.programs.refuse_connect4.attachCgroup(world.cgroup)
    first.pin(path)
    first.close()
    expect(await dial(PORT)).toBe('EPERM')
    const adopted = openPinnedLink(path)
    expect(adopted.order).toBe('adopted')
    adopted.update(module.programs.refuse_all4)
    expect(await dial(PORT + 1)).toBe('EPERM')
    adopted.detach()
    expect(await dial(PORT)).toBe('ECONNREFUSED')
    expect(() => adopted.update(module.programs.refuse_all4)).toThrow('ENOLINK')
    adopted.close()
    rmSync(path)
  })

  it('goes before the others when asked to, whatever came earlier', async () => {
    const order = module.maps.sample_array
    using _late = module.programs.order_two.attachCgroup(world.cgroup)
    order.set(3, 0n)
    {
      using _last = module.programs.order_one.attachCgroup(world.cgroup, { order: 'last' })
      await dial(1)
      expect(order.get(3)).toBe(21n)
    }
    order.set(3, 0n)
    using first = module.programs.order_one.attachCgroup(world.cgroup, { order: 'first' })
    expect(first.order).toBe('before')
    await dial(1)
    expect(order.get(3)).toBe(12n)
  })

  it('falls back to BPF_F_PREORDER, then to the end, where the kernel has neither', () => {
    try {
      process.env['AMBIT_BPF_FEATURES'] = '-link:cgroup_before'
      using preorder = module.programs.order_one.attachCgroup(world.cgroup, { order: 'first' })
      expect(preorder.order).toBe('preorder')
      process.env['AMBIT_BPF_FEATURES'] = '-link:cgroup_before,-link:cgroup_preorder'
      using append = module.programs.order_two.attachCgroup(world.cgroup, { order: 'first' })
      expect(append.order).toBe('append')
    } finally {
      delete process.env['AMBIT_BPF_FEATURES']
    }
  })

  it('says what it could not attach where', () => {
    expect(() => module.programs.order_one.attachCgroup('/nonexistent')).toThrow(
      'Attaching program order_one to cgroup /nonexistent failed: open answered ENOENT',
    )
    expect(() => module.programs.order_one.attachCgroup('/proc')).toThrow('BPF_LINK_CREATE answered EBADF')
  })
})

describe('a namespace link', () => {
  it('hands connections to any address and port to a listener made inside', async () => {
    const outside = world.sockets(world.outside)
    const listener = socketIn(pod.netns, { family: 4, bind: { address: '127.0.0.1' }, listen: { backlog: 16 } })
    const netns = openNetns(pod.netns)
    const link = module.programs.to_socket.attachNetns(netns)
    closeFd(netns)
    expect((await outside.call('connect', { to: pod.v4, port: 4242 })).error).toBe('ECONNREFUSED') // SK_DROP
    module.maps.sample_sockets.set(1, listener)

    const server = createServer()
    const accepted = new Promise<{ local: unknown; text: string }>((resolve) => {
      server.on('connection', (socket) => {
        const local = socketName((socket as unknown as { _handle: { fd: number } })._handle.fd)
        socket.once('data', (data) => {
          resolve({ local, text: data.toString() })
          socket.destroy()
        })
      })
    })
    await new Promise<void>((resolve) => server.listen({ fd: listener }, resolve))
    const { socket } = await outside.must('connect', { to: pod.v4, port: 4242 })
    await outside.must('send', { socket, data: 'hello' })
    expect(await accepted).toEqual({ local: { address: pod.v4, port: 4242, family: 4, mapped: false }, text: 'hello' })
    server.close()
    link.close()
    outside.kill()
  })

  it('can be pinned; a connection made by descriptor leaves from inside the namespace', async () => {
    const path = join(world.pinRoot, 'lookup')
    mkdirSync(world.pinRoot, { recursive: true })
    const link = module.programs.to_socket.attachNetns(pod.netns)
    link.pin(path)
    link.close()
    expect(existsSync(path)).toBe(true)
    const adopted = openPinnedLink(path)
    expect(adopted.info().attachType).toBe(36)
    adopted.detach()
    adopted.close()
    rmSync(path)

    const outside = world.sockets(world.outside)
    const { socket: listening, port } = await outside.must('listen', { bind: '0.0.0.0' })
    const socket = connect({ fd: socketIn(pod.netns, { family: 4 }), host: world.outside.v4, port: port! } as never)
    socket.on('error', () => undefined)
    expect((await outside.must('accept', { socket: listening })).address).toBe(pod.v4)
    socket.destroy()
    outside.kill()
  })
})

describe('a program', () => {
  it('runs for a test, with the time it took', () => {
    const context = codec.encode(SampleRun, { first: 1, second: 2, sum: 0n })
    const { returned, context: after } = module.programs.add.testRun({ context })
    expect(returned).toBe(42)
    expect(codec.decode(SampleRun, after).sum).toBe(4n)
    expect(codec.decode(SampleRun, context).sum).toBe(0n) // the caller's bytes are its own
  })

  it('runs sk_lookup on a made-up connection', () => {
    module.maps.sample_sockets.delete(1)
    // struct bpf_sk_lookup: cookie, family, protocol, remote and local address and port, ingress interface.
    const context = new Uint8Array(72)
    const view = new DataView(context.buffer)
    view.setUint32(8, 2, true)
    view.setUint32(12, 6, true)
    const { returned, nanoseconds } = module.programs.to_socket.testRun({ context, repeat: 1000 })
    expect(returned).toBe(0) // SK_DROP
    expect(nanoseconds).toBeGreaterThan(0)
  })

  it('that cannot be run for a test says so', () => {
    expect(() => module.programs.order_one.testRun()).toThrow('BPF_PROG_TEST_RUN answered ENOTSUPP')
  })

  it('can be pinned and opened by another', () => {
    const path = join(world.pinRoot, 'program')
    mkdirSync(world.pinRoot, { recursive: true })
    module.programs.to_socket.pin(path)
    const again = openPinnedProgram(path)
    expect([again.type, again.tag]).toEqual(['sk_lookup', module.programs.to_socket.tag])
    const link = again.attachNetns(pod.netns)
    expect(link.info().attachType).toBe(36)
    link.close()
    again.close()
    rmSync(path)
  })
})
