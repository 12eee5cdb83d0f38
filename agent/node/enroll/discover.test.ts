// What /proc can be like in moments no real process can be held in; real processes: test/kernel/discover.test.ts.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { discoverPods, type SoughtPod } from './discover.ts'

const uid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`
const sought = (number: number, addresses: string[] = []): SoughtPod => ({ uid: uid(number), addresses })

interface Files {
  readonly cgroup?: string
  readonly stat?: string
  readonly fib?: string
  readonly inet6?: string
  /** False: it has none any more. */
  readonly namespace?: boolean
}

describe('looking for pods in /proc', () => {
  let proc: string
  beforeEach(() => {
    proc = mkdtempSync(join(tmpdir(), 'ambit-proc-'))
    process(1, { cgroup: '0::/' })
    mkdirSync(join(proc, 'sys'))
  })
  afterEach(() => rmSync(proc, { recursive: true, force: true }))

  /** A folder as of a process; its namespace is a file of its own. */
  function process(pid: number, { cgroup, stat, fib, inet6, namespace = true }: Files): void {
    const folder = join(proc, String(pid))
    mkdirSync(join(folder, 'ns'), { recursive: true })
    mkdirSync(join(folder, 'net'))
    if (cgroup !== undefined) writeFileSync(join(folder, 'cgroup'), cgroup)
    writeFileSync(join(folder, 'stat'), stat ?? statOf(pid, pid * 100))
    if (fib !== undefined) writeFileSync(join(folder, 'net/fib_trie'), fib)
    if (inet6 !== undefined) writeFileSync(join(folder, 'net/if_inet6'), inet6)
    if (namespace) writeFileSync(join(folder, 'ns/net'), '')
  }
  const statOf = (pid: number, started: number, name = 'pause'): string =>
    `${pid} (${name}) S ${Array.from({ length: 18 }, () => '0').join(' ')} ${started} 0 0\n`
  const of = (number: number): string => `0::/kubepods/pod${uid(number)}/x\n`

  it('takes the start of a process whatever it is called', async () => {
    process(20, { cgroup: of(1), stat: statOf(20, 500, 'a) S 1 (b 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0') })
    process(30, { cgroup: of(1), stat: statOf(30, 400, 'c'), fib: '' })
    const fib = '           |-- 10.0.0.1\n              /32 host LOCAL\n'
    for (const pid of [20, 30]) writeFileSync(join(proc, `${pid}/net/fib_trie`), fib)
    const { found } = await discoverPods([sought(1, ['10.0.0.1'])], { proc, netnsFolders: [] })
    expect(found.get(uid(1))).toMatchObject({ pid: 30, netns: `${proc}/30/ns/net` })
  })

  it('passes over processes that are ending, and files that make no sense', async () => {
    process(2, { cgroup: of(1), namespace: false })
    process(3, { cgroup: of(1), stat: '' })
    process(4, { cgroup: of(1), stat: '4 (x' })
    process(5, {})
    process(6, { cgroup: `0::/${'x'.repeat(300_000)}` })
    process(7, { cgroup: '' })
    process(8, { cgroup: of(1) })
    const { found } = await discoverPods([sought(1), sought(2)], { proc, netnsFolders: ['/nowhere'] })
    expect([...found.keys()]).toEqual([uid(1)])
    expect(found.get(uid(1))).toMatchObject({ pid: 8, processes: 1 })
  })

  it('reads addresses as the kernel writes them', async () => {
    const fib = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.0.0/24 2 0 2
        |-- 10.1.0.0
           /24 link UNICAST
        |-- 10.1.0.7
           /32 host LOCAL
        |-- 10.1.0.255
           /32 link BROADCAST
`
    const inet6 =
      'fd000001000000000000000000000007 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n'
    process(2, { cgroup: of(1), fib, inet6 })
    const held = async (address: string): Promise<boolean> =>
      (await discoverPods([sought(1, [address])], { proc, netnsFolders: [] })).found.size === 1
    for (const address of ['10.1.0.7', '::ffff:10.1.0.7', 'fd00:1::7', 'FD00:1:0::7'])
      expect(await held(address)).toBe(true)
    for (const address of ['10.1.0.0', '10.1.0.255', 'fd00:1::8', 'x']) expect(await held(address)).toBe(false)
  })

  it('lets others have their turn between many processes', async () => {
    for (let pid = 100; pid < 700; pid++) process(pid, { cgroup: of(pid) })
    let turns = 0
    let looking = true
    const count = (): void => {
      turns++
      if (looking) setImmediate(count)
    }
    setImmediate(count)
    const { found } = await discoverPods([sought(100), sought(699), sought(700)], { proc, netnsFolders: [] })
    looking = false
    expect([...found.keys()]).toEqual([uid(100), uid(699)])
    expect(turns).toBeGreaterThan(3)
  })

  it('does not look at all for nobody', async () => {
    expect((await discoverPods([], { proc: '/nowhere' })).found.size).toBe(0)
  })
})
