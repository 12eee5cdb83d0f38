// Sockets in other namespaces, descriptors over unix sockets, cookies and ids, on a real kernel.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { World, type Pod } from '../../test/world/netns.ts'
import {
  cgroupId,
  closeFd,
  dupFd,
  hasFeature,
  interfacesIn,
  netnsCookie,
  openNetns,
  packetSocket,
  peerName,
  probeFeatures,
  recvFds,
  sendFds,
  socketCookie,
  socketIn,
  socketName,
  socketNetns,
  socketPair,
} from './index.ts'

const here = '/proc/self/ns/net'
let world: World
let pod: Pod
beforeAll(() => {
  world = new World()
  pod = world.pod()
})
afterAll(() => world.close())

const flagsOf = (fd: number): number =>
  parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8)
const O_CLOEXEC = 0o2000000
const O_NONBLOCK = 0o4000

describe('a socket made in another namespace', () => {
  it('binds addresses that exist only there, in both families', () => {
    for (const [family, address] of [
      [4, pod.v4],
      [6, pod.v6],
    ] as const) {
      const socket = socketIn(pod.netns, { family, bind: { address, port: 8080 }, listen: {} })
      expect(socketName(socket)).toMatchObject({ address, port: 8080, family })
      closeFd(socket)
      expect(() => socketIn(here, { family, bind: { address, port: 8080 }, listen: {} })).toThrow('EADDRNOTAVAIL')
    }
  })

  it('is close-on-exec and non-blocking from its birth, unless asked otherwise', () => {
    const socket = socketIn(pod.netns, { family: 4 })
    expect(flagsOf(socket) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC | O_NONBLOCK)
    closeFd(socket)
    const blocking = socketIn(pod.netns, { family: 4, nonBlocking: false })
    expect(flagsOf(blocking) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC)
    closeFd(blocking)
  })

  it('can share its port, and take both families on one IPv6 socket or not', () => {
    const options = { family: 6, bind: { address: '::', port: 9090 }, listen: {}, reusePort: true } as const
    const one = socketIn(pod.netns, { ...options, ipv6Only: true })
    const two = socketIn(pod.netns, { ...options, ipv6Only: true })
    const four = socketIn(pod.netns, { family: 4, bind: { address: '0.0.0.0', port: 9090 }, listen: {} })
    expect(() => socketIn(pod.netns, { family: 4, bind: { address: '0.0.0.0', port: 9090 }, listen: {} })).toThrow(
      /listen answered EADDRINUSE|bind answered EADDRINUSE/,
    )
    for (const fd of [one, two, four]) closeFd(fd)
  })

  it('never moves the caller or another thread of this process to that namespace for good', () => {
    const before = readlinkSync('/proc/self/ns/net')
    for (let i = 0; i < 50; i++) closeFd(socketIn(pod.netns, { family: 4 }))
    expect(readlinkSync('/proc/self/ns/net')).toBe(before)
    const threads = readFileSync('/proc/self/status', 'utf8')
    expect(threads).toMatch(/Threads:/)
    expect(allThreadNamespaces()).toEqual([before])
  })

  it('names the step that failed', () => {
    expect(() => socketIn('/nonexistent', { family: 4 })).toThrow('Opening network namespace /nonexistent failed')
    expect(() => socketIn('/dev/null', { family: 4 })).toThrow('setns answered EINVAL')
    expect(() => socketIn(pod.netns, { family: 4, bind: { address: '203.0.113.9' } })).toThrow(
      'at 203.0.113.9:0 failed: bind answered EADDRNOTAVAIL',
    )
  })

  it('binds foreign addresses when transparent', () => {
    const socket = socketIn(pod.netns, { family: 4, transparent: true, bind: { address: '203.0.113.9', port: 5 } })
    expect(socketName(socket)).toMatchObject({ address: '203.0.113.9', port: 5 })
    closeFd(socket)
  })
})

describe('identities', () => {
  it('of namespaces are cookies: stable, unique, the same by path and descriptor', () => {
    const other = world.pod()
    const fd = openNetns(pod.netns)
    expect(netnsCookie(fd)).toBe(netnsCookie(pod.netns))
    closeFd(fd)
    expect(new Set([netnsCookie(pod.netns), netnsCookie(other.netns), netnsCookie(here)]).size).toBe(3)
  })

  it('of cgroups are their ids, which kernfs also shows as inode', () => {
    mkdirSync(`${world.cgroup}/x`, { recursive: true })
    expect(cgroupId(`${world.cgroup}/x`)).toBe(statSync(`${world.cgroup}/x`, { bigint: true }).ino)
    expect(() => cgroupId('/nonexistent')).toThrow('ENOENT')
  })

  it('of sockets are cookies', () => {
    const socket = socketIn(here, { family: 4 })
    const copy = dupFd(socket)
    const other = socketIn(here, { family: 4 })
    expect(socketCookie(copy)).toBe(socketCookie(socket))
    expect(socketCookie(other)).not.toBe(socketCookie(socket))
    expect(flagsOf(copy) & O_CLOEXEC).toBe(O_CLOEXEC)
    for (const fd of [socket, copy, other]) closeFd(fd)
    expect(() => closeFd(socket)).toThrow('EBADF')
    expect(() => dupFd(socket)).toThrow('EBADF')
  })

  it('of a peer need a connection', () => {
    const socket = socketIn(here, { family: 6 })
    expect(() => peerName(socket)).toThrow('getpeername answered ENOTCONN')
    closeFd(socket)
  })
})

describe('a socket', () => {
  it('tells its namespace, wherever its owner is', () => {
    const there = socketIn(pod.netns, { family: 4 })
    const home = socketIn(here, { family: 6 })
    expect(socketNetns(there)).toBe(netnsCookie(pod.netns))
    expect(socketNetns(home)).toBe(netnsCookie(here))
    const none = openNetns(here)
    expect(() => socketNetns(none)).toThrow('SO_NETNS_COOKIE')
    for (const fd of [there, home, none]) closeFd(fd)
  })
})

describe('descriptors over a unix socket', () => {
  it('go to whoever listens for packets at a path, or to nobody', async () => {
    expect(() => packetSocket('/nowhere/at/all')).toThrow('ENOENT')
    expect(() => packetSocket('x'.repeat(200))).toThrow('ENAMETOOLONG')
    const path = `/tmp/ambit-packets-${process.pid}`
    const script = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1]); s.listen(); print("up", flush=True)
c, _ = s.accept()
while True:
  data, fds, _, _ = socket.recv_fds(c, 100, 3)
  if not data: break
  c.send(b"%d bytes %d fds" % (len(data), len(fds)))`
    const peer = spawn('/usr/bin/python3', ['-c', script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((resolve) => peer.stdout.once('data', resolve))
    const socket = packetSocket(path)
    expect(flagsOf(socket) & (O_CLOEXEC | O_NONBLOCK)).toBe(O_CLOEXEC | O_NONBLOCK)
    const said: string[] = []
    sendFds(socket, Buffer.from('one'), [socket, socket])
    sendFds(socket, Buffer.from('three'), [])
    const take = (): string[] => {
      const got = recvFds(socket, 100, 1)
      if (got) said.push(Buffer.from(got.bytes).toString())
      return said
    }
    await expect.poll(take).toEqual(['3 bytes 2 fds', '5 bytes 0 fds'])
    closeFd(socket)
    peer.kill()
    rmSync(path)
  })

  it('arrive as new ones for the same file, close-on-exec', () => {
    const [one, two] = socketPair()
    const listener = socketIn(pod.netns, { family: 4, bind: { address: pod.v4 }, listen: {} })
    expect(recvFds(two)).toBeUndefined()
    expect(sendFds(one, Buffer.from('take'), [listener, listener])).toBe(4)
    const got = recvFds(two)!
    expect(Buffer.from(got.bytes).toString()).toBe('take')
    expect(got.truncated).toBe(false)
    expect(got.fds.map((fd) => socketCookie(fd))).toEqual([socketCookie(listener), socketCookie(listener)])
    expect(got.fds.every((fd) => (flagsOf(fd) & O_CLOEXEC) !== 0)).toBe(true)
    for (const fd of [...got.fds, listener, one]) closeFd(fd)
    expect(recvFds(two)?.bytes.length).toBe(0) // end of stream
    closeFd(two)
  })

  it('beyond those asked for are closed by the kernel, and that is told', () => {
    const [one, two] = socketPair()
    sendFds(one, Buffer.from('x'), [one, one, one])
    const got = recvFds(two, 10, 1)!
    expect([got.fds.length, got.truncated]).toEqual([1, true])
    for (const fd of [...got.fds, one, two]) closeFd(fd)
  })

  it('are refused in impossible numbers or without a byte', () => {
    const [one, two] = socketPair()
    expect(() => sendFds(one, Buffer.from('x'), Array<number>(254).fill(one))).toThrow('EINVAL')
    expect(() => sendFds(one, new Uint8Array(), [one])).toThrow('EINVAL')
    closeFd(two)
    expect(() => sendFds(one, Buffer.from('x'), [])).toThrow('EPIPE')
    closeFd(one)
  })
})

describe('interfaces', () => {
  it('of a namespace are listed with what their frames begin with', () => {
    const found = interfacesIn(pod.netns)
    const [lo, leg] = ['lo', 'eth0'].map((wanted) => found.find(({ name }) => name === wanted))
    expect(lo).toEqual({ index: 1, name: 'lo', type: 772, loopback: true })
    expect(leg).toMatchObject({ type: 1, loopback: false })
    expect(leg!.index).toBeGreaterThan(1)
    expect(() => interfacesIn('/run/netns/no-such')).toThrow('ENOENT')
  })
})

describe('feature probes', () => {
  it('find what this kernel has and not what no kernel has', () => {
    const found = probeFeatures([
      'map:sk_storage',
      'program:sk_lookup',
      'helper:cgroup_sock_addr/get_netns_cookie',
      'helper:sk_lookup/get_netns_cookie',
      'link:cgroup',
      'netns_cookie',
      'map:unspec',
    ])
    expect(found).toEqual({
      'map:sk_storage': true,
      'program:sk_lookup': true,
      'helper:cgroup_sock_addr/get_netns_cookie': true,
      'helper:sk_lookup/get_netns_cookie': true,
      'link:cgroup': true,
      netns_cookie: true,
      'map:unspec': false,
    })
  })

  it('can be told to say no', () => {
    try {
      process.env['AMBIT_BPF_FEATURES'] = '-netns_cookie, -map:*'
      expect(hasFeature('netns_cookie')).toBe(false)
      expect(hasFeature('map:hash')).toBe(false)
      expect(hasFeature('link:cgroup')).toBe(true)
    } finally {
      delete process.env['AMBIT_BPF_FEATURES']
    }
    expect(hasFeature('map:hash')).toBe(true)
  })
})

/** The distinct namespaces of this process's threads. */
function allThreadNamespaces(): string[] {
  const { readdirSync } = process.getBuiltinModule('node:fs')
  return [...new Set(readdirSync('/proc/self/task').map((thread) => readlinkSync(`/proc/self/task/${thread}/ns/net`)))]
}
