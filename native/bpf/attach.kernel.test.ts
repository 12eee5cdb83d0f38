// Links to network interfaces and iterators on a real kernel.
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { World, ip, type Pod } from '../../test/world/netns.ts'
import { closeFd, codec, hasFeature, openObject, socketIn, socketName, type BpfModule } from './index.ts'
import { libbpfEntriesSchema } from './gen/test/libbpf_entries.ts'
import { libbpfSampleSchema } from './gen/test/libbpf_sample.ts'

const object = (name: string): string => join(import.meta.dirname, '../../bpf/build', `${name}.bpf.o`)

let world: World
let pod: Pod
let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  world = new World()
  pod = world.pod()
  module = await openObject(object('libbpf_sample'), libbpfSampleSchema).load()
})
afterAll(async () => {
  module.close()
  await world.close()
})
afterEach(() => delete process.env['AMBIT_BPF_FEATURES'])

describe('a link to an interface', () => {
  /** Connects from the pod to a port outside where nobody listens. */
  const dial = async (): Promise<string | undefined> => {
    const app = world.sockets(pod)
    const { error } = await app.call('connect', { to: world.outside.v4, port: 9, timeout: 0.4 })
    app.kill()
    return error
  }

  it('sees what goes out, may drop it, and comes before others when asked to', async () => {
    const count = module.maps.sample_array
    expect(await dial()).toBe('ECONNREFUSED')
    count.set(0, 0n)
    using counting = module.programs.count_packets.attachInterface(pod.netns, 'eth0', { direction: 'egress' })
    const index = Number(ip('-n', pod.name, '-o', 'link', 'show', 'eth0').split(':')[0])
    expect(counting.info()).toMatchObject({ attachType: 47, target: BigInt(index) })
    expect(await dial()).toBe('ECONNREFUSED')
    const counted = count.get(0)!
    expect(counted).toBeGreaterThan(0n)
    {
      using _last = module.programs.drop_packets.attachInterface(pod.netns, 'eth0', { direction: 'egress' })
      expect(await dial()).toBe('ETIMEDOUT')
      expect(count.get(0)).toBeGreaterThan(counted)
    }
    count.set(0, 0n)
    using first = module.programs.drop_packets.attachInterface(pod.netns, 'eth0', {
      direction: 'egress',
      order: 'first',
    })
    expect(first.order).toBe('before')
    expect(await dial()).toBe('ETIMEDOUT')
    expect(count.get(0)).toBe(0n)
    // One program is on an interface's direction once only; another takes its place, here one that lets all pass.
    expect(() => first.update(module.programs.count_packets)).toThrow('EEXIST')
    first.update(module.programs.match_prefix)
    expect(await dial()).toBe('ECONNREFUSED')
  })

  it('sees what comes in', async () => {
    using _link = module.programs.drop_packets.attachInterface(pod.netns, 'eth0', { direction: 'ingress' })
    expect(await dial()).toBe('ETIMEDOUT')
  })

  it('names the interface that is not there, and the kernel that cannot', () => {
    const attach = () => module.programs.count_packets.attachInterface(pod.netns, 'eth7', { direction: 'egress' })
    expect(attach).toThrow(/to the egress of eth7 in network namespace .* ENODEV/)
    process.env['AMBIT_BPF_FEATURES'] = '-link:tcx'
    expect(attach).toThrow(/needs tcx, which this kernel lacks\. Use a kernel from 6\.6 on/)
  })
})

describe('an iterator', () => {
  const numbers = (bytes: Uint8Array): number[] => codec.decode(codec.array(codec.u32, bytes.length / 4), bytes)

  it('walks the entries of a map, where the kernel lends programs such an iterator, and is refused elsewhere', async () => {
    const loading = openObject(object('libbpf_entries'), libbpfEntriesSchema).load()
    if (!hasFeature('iterator:bpf_map_elem')) {
      await expect(loading).rejects.toThrow('odd_entries')
      return
    }
    using entries = await loading
    const [map, { odd_entries: odd }] = [entries.maps.sample_entries, entries.programs]
    map.setMany([1, 2, 3, 4, 5].map((key) => [key, BigInt(key)]))
    expect(numbers(odd.iterate({ map })).toSorted((a, b) => a - b)).toEqual([1, 3, 5])
    expect(() => odd.iterate({ map, maxBytes: 4 })).toThrow('E2BIG')
    expect(await odd.iterateAsync({ map })).toHaveLength(12)
    await expect(odd.iterateAsync({ map, maxBytes: 4 })).rejects.toThrow('E2BIG')
    map.clear()
    expect(odd.iterate({ map })).toEqual(new Uint8Array())
  })

  it('walks the sockets of the namespace it is told', async () => {
    const socket = socketIn(pod.netns, { family: 4, bind: { address: '127.0.0.1' }, listen: {} })
    const { port } = socketName(socket)
    expect(numbers(module.programs.listening_ports.iterate({ netns: pod.netns }))).toEqual([port])
    const several = Array.from({ length: 8 }, () => module.programs.listening_ports.iterateAsync({ netns: pod.netns }))
    for (const out of await Promise.all(several)) expect(numbers(out)).toEqual([port])
    await expect(module.programs.listening_ports.iterateAsync({ netns: '/nonexistent' })).rejects.toThrow('ENOENT')
    closeFd(socket)
    expect(numbers(module.programs.listening_ports.iterate({ netns: pod.netns }))).toEqual([])
  })

  it('is known before it is loaded', () => {
    expect(hasFeature('iterator:tcp')).toBe(true)
    expect(hasFeature('kfunc:bpf_sock_destroy')).toBe(true)
    expect(hasFeature('kfunc:bpf_no_such_function')).toBe(false)
    expect(hasFeature('iterator:task_file')).toBe(true)
    expect(hasFeature('iterator:weather')).toBe(false)
    expect(hasFeature('link:tcx')).toBe(true)
  })
})
