// The holder against an independent client: what it keeps, what it refuses, how one holder follows another. Every test runs
// on the program as it is shipped and on one under AddressSanitizer.
import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Stage, type Build, type Holder } from './test/holder.ts'

/** Machines under load take their time. */
const patient = { timeout: 10_000 }

/** What a count comes down to in a tenth of a second. */
async function fewest(count: () => number): Promise<number> {
  let least = count()
  for (let looks = 0; looks < 10; looks++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    least = Math.min(least, count())
  }
  return least
}

describe.each<Build>(['release', 'asan'])('a holder (%s)', (build) => {
  let stage: Stage
  let holder: Holder
  beforeEach(async () => {
    stage = new Stage(build)
    holder = await stage.holder('--linger', '1')
  })
  afterEach(() => stage.close())

  /** Connects to a port and says something that whoever accepts will read. */
  const dial = (port: number | undefined, say: string) => stage.do('dial', { port, say })
  const heard = async (socket: number | undefined) => (await stage.do('accept', { socket })).said

  it('keeps sockets of which the maker is gone, with those who wait in their queues', async () => {
    const [first, second] = await stage.put('v2/77', 2)
    await dial(first, 'one')
    await dial(second, 'two')
    const { sockets, status } = await stage.ask('get', { body: 'v2/77' })
    expect(status).toBe('')
    expect(sockets).toHaveLength(2)
    expect(await heard(sockets![0])).toBe('one')
    expect(await heard(sockets![1])).toBe('two')
    // It still has them: the next may ask again.
    expect((await stage.ask('get', { body: 'v2/77' })).sockets).toHaveLength(2)
  })

  it('lists names in order and by pages, replaces, drops one and drops by prefix', async () => {
    const names = Array.from({ length: 200 }, (_, i) => `v2/${'n'.repeat(110)}${String(i).padStart(4, '0')}`)
    const { socket } = await stage.do('listener')
    const client = await stage.client()
    for (const body of [...names].reverse()) await stage.do('request', { client, kind: 'put', body, sockets: [socket] })
    await stage.put('v3/1')
    const found: string[] = []
    for (let pages = 0; ; pages++) {
      const page = await stage.do('request', { client, kind: 'list', body: found.at(-1) ?? '' })
      expect(page.names).toHaveLength(page.count!)
      if (page.count === 0) {
        expect(pages).toBeGreaterThan(1)
        break
      }
      found.push(...page.names!)
    }
    expect(found).toEqual([...names, 'v3/1'])
    const [port] = await stage.put('v3/1')
    const { sockets } = await stage.ask('get', { body: 'v3/1' })
    await dial(port, 'the newer')
    expect(await heard(sockets![0])).toBe('the newer')
    expect(await stage.ask('drop', { body: names[0] })).toMatchObject({ status: '' })
    expect(await stage.ask('drop', { body: names[0] })).toMatchObject({ status: 'No such file or directory' })
    expect(await stage.ask('drop_all', { body: 'v2/' })).toMatchObject({ status: '', count: 199 })
    expect(await stage.ask('status')).toMatchObject({ status: '', count: 1 })
    expect(await stage.ask('drop_all')).toMatchObject({ count: 1 })
    expect(await stage.try('dial', { port, say: '' })).toMatchObject({ socket: expect.any(Number) as number })
  })

  it('closes what is dropped: who dials it is refused', async () => {
    const [port] = await stage.put('one')
    await stage.ask('drop', { body: 'one' })
    expect(await stage.try('dial', { port, say: 'x' })).toEqual({ error: 'Connection refused' })
  })

  it('refuses what it does not keep: names, counts, sockets that do not listen, other versions', async () => {
    const { socket } = await stage.do('listener')
    const { socket: idle } = await stage.do('listener', { listening: false })
    const put = async (body: string, sockets: (number | undefined)[], more = {}) =>
      (await stage.ask('put', { body, sockets, ...more })).status
    const invalid = 'Invalid argument'
    expect(await put('', [socket])).toBe(invalid)
    expect(await put('a b', [socket])).toBe(invalid)
    expect(await put('ü', [socket])).toBe(invalid)
    expect(await put('a\0b', [socket])).toBe(invalid)
    expect(await put('x'.repeat(121), [socket])).toBe(invalid)
    expect(await put('none', [])).toBe(invalid)
    expect(await put('idle', [socket, idle])).toBe(invalid)
    expect(
      await put(
        'many',
        Array.from({ length: 9 }, () => socket),
      ),
    ).toBe('Message too long')
    expect(await put('long'.repeat(5_000), [])).toBe('Message too long')
    expect(await put('x'.repeat(120), [socket])).toBe('')
    expect(
      await put(
        'eight',
        Array.from({ length: 8 }, () => socket),
      ),
    ).toBe('')
    expect((await stage.ask('get', { body: 'x', sockets: [socket] })).status).toBe(invalid)
    expect((await stage.ask('get', { body: 'absent' })).status).toBe('No such file or directory')
    expect(await stage.ask('status', { version: 2 })).toMatchObject({ status: 'Protocol not supported', version: 1 })
    for (const odd of [0, 'commit', 'leaving', 10, 65_535]) {
      expect((await stage.ask(odd)).status, String(odd)).toBe('Protocol error')
    }
    expect((await stage.ask('status', { magic: 1 })).status).toBe('Protocol error')
    expect(await stage.ask('status')).toMatchObject({ count: 2 })
  })

  it('keeps sealed memory, of which the maker is gone, over the next holder too', async () => {
    const { socket } = await stage.do('memory', { say: 'a secret', size: 100 })
    expect(await stage.ask('put', { body: 'keys', sockets: [socket] })).toMatchObject({ status: '' })
    await stage.do('close', { thing: socket })
    const recalled = async () =>
      (await stage.do('recall', { socket: (await stage.ask('get', { body: 'keys' })).sockets![0] })).said
    expect(await recalled()).toContain('a secret')
    await stage.holder()
    await holder.says('another holder has taken over')
    expect(await recalled()).toContain('a secret')
  })

  it('refuses memory that could still change, too much of it, too many pieces, and memory beside sockets', async () => {
    const put = async (body: string, options: Record<string, unknown>) => {
      const { socket } = await stage.do('memory', options)
      const { status } = await stage.ask('put', { body, sockets: [socket] })
      await stage.do('close', { thing: socket })
      return status
    }
    for (const leave of ['seal', 'shrink', 'grow', 'write'])
      expect(await put('open', { leave: [leave] }), leave).toBe('Invalid argument')
    expect(await put('big', { size: 16 * 1024 * 1024 + 1 })).toBe('File too large')
    for (const name of ['a', 'b', 'c', 'd']) expect(await put(name, { size: 16 * 1024 * 1024 })).toBe('')
    expect(await put('e', { size: 1 })).toBe('No space left on device')
    expect(await put('d', { size: 1 })).toBe('')
    await stage.put('e')
    const { socket } = await stage.do('listener')
    const { socket: memory } = await stage.do('memory', {})
    expect((await stage.ask('put', { body: 'both', sockets: [socket, memory] })).status).toBe('Invalid argument')
    expect((await stage.ask('list')).names).toEqual(['a', 'b', 'c', 'd', 'e'])
  })

  it('keeps at most 4096 sets', async () => {
    const { socket } = await stage.do('listener')
    const client = await stage.client()
    for (let i = 0; i < 4096; i++)
      await stage.do('request', { client, kind: 'put', body: `set/${i}`, sockets: [socket] })
    expect(await stage.do('request', { client, kind: 'put', body: 'beyond', sockets: [socket] })).toMatchObject({
      status: 'No space left on device',
    })
    // One that is there may still be replaced.
    expect(await stage.do('request', { client, kind: 'put', body: 'set/7', sockets: [socket] })).toMatchObject({
      status: '',
    })
  })

  it('serves on whatever a client does, and gives nothing away that it keeps', async () => {
    const [port] = await stage.put('kept')
    const descriptors = () => statSync(`/proc/${holder.process.pid}/fd`).size
    // The connection that brought it may not have been closed yet.
    const before = await fewest(descriptors)
    for (let seed = 1; seed <= 6; seed++) {
      const { error } = await stage.try('fuzz', { path: stage.path, seed, count: 400 })
      expect(error).toBeUndefined()
    }
    // What the closed connections had sent is heard to its end first; a take-over among it ends with its connection.
    const left = async () => {
      // A head that was cut short takes its rest from the body, so that any name may have come of it.
      for (const body of (await stage.ask('list')).names!) if (body !== 'kept') await stage.ask('drop', { body })
      return (await stage.ask('list')).names
    }
    await expect.poll(left, patient).toEqual(['kept'])
    await dial(port, 'still here')
    expect(await heard((await stage.ask('get', { body: 'kept' })).sockets![0])).toBe('still here')
    await expect.poll(descriptors, patient).toBe(before)
    expect(holder.process.exitCode).toBeNull()
  })

  it('closes connections beyond 32, and lets new ones in when others went', async () => {
    const clients: number[] = []
    for (let i = 0; i < 32; i++) clients.push(await stage.client())
    await stage.do('request', { client: clients[31], kind: 'status' })
    const extra = await stage.client()
    expect(await stage.do('read', { client: extra })).toEqual({ eof: true })
    for (const thing of clients) await stage.do('close', { thing })
    await expect.poll(async () => (await stage.try('connect', { path: stage.path })).client, patient).toBeGreaterThan(0)
    await expect.poll(async () => (await stage.ask('status')).status, patient).toBe('')
  })

  it('answers nobody of another user', async () => {
    expect(statSync(stage.path).mode & 0o777).toBe(0o600)
    chmodSync(stage.folder, 0o755)
    const nobody = stage.peer(['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'])
    expect(await nobody({ op: 'connect', path: stage.path })).toEqual({ error: 'Permission denied' })
    chmodSync(stage.path, 0o666)
    const { client } = await nobody({ op: 'connect', path: stage.path })
    await nobody({ op: 'send', client, kind: 'status' })
    const answer = await nobody({ op: 'read', client })
    expect([{ eof: true }, { error: 'Connection reset by peer' }]).toContainEqual(answer)
  })

  describe('asked to end', () => {
    it('does so at once when it keeps nothing, and leaves no socket behind', async () => {
      holder.process.kill('SIGTERM')
      expect(await holder.ended).toEqual({ code: 0, signal: null })
      expect(existsSync(stage.path)).toBe(false)
    })

    it('waits for a successor as long as it was told, then ends', async () => {
      const [port] = await stage.put('kept')
      const began = performance.now()
      holder.process.kill('SIGTERM')
      await dial(port, 'x')
      expect((await stage.ask('status')).count).toBe(1)
      expect(await holder.ended).toEqual({ code: 0, signal: null })
      expect(performance.now() - began).toBeGreaterThan(900)
      expect(holder.log).toContain('nobody came for 1 sets')
    })

    it('ends as soon as a successor has taken everything', async () => {
      const [port] = await stage.put('kept')
      holder.process.kill('SIGTERM')
      await holder.says('wait for the next holder')
      const next = await stage.holder()
      expect(await holder.ended).toEqual({ code: 0, signal: null })
      await dial(port, 'onwards')
      expect(await heard((await stage.ask('get', { body: 'kept' })).sockets![0])).toBe('onwards')
      expect(next.log).toContain('with 1 sets of the holder before')
    })
  })

  describe('followed by another', () => {
    it('hands everything over without a moment in which anybody is refused', async () => {
      const ports: number[] = []
      for (let i = 0; i < 50; i++) ports.push(...(await stage.put(`v2/${i}`, 3)))
      // Somebody asks all the time, on new connections.
      let asking = true
      const answers = new Set<string>()
      const other = stage.peer()
      const questions = (async () => {
        while (asking) {
          const { client, error } = await other({ op: 'connect', path: stage.path })
          if (error !== undefined) answers.add(error)
          const asked = await other({ op: 'request', client, kind: 'get', body: 'v2/49' })
          answers.add(asked.error ?? (asked.eof ? 'eof' : `${asked.status}${asked.sockets!.length}`))
          for (const thing of [client, ...(asked.sockets ?? [])]) await other({ op: 'close', thing })
        }
      })()
      await expect.poll(() => [...answers], patient).toEqual(['3'])
      const next = await stage.holder()
      await holder.says('another holder has taken over')
      const third = await stage.holder()
      await next.says('another holder has taken over')
      answers.delete('3')
      await expect.poll(() => answers.has('3'), patient).toBe(true)
      asking = false
      await questions
      // A connection to the old one may end at the moment of the change; nobody finds the path empty or the set gone.
      for (const harmless of ['eof', 'Connection reset by peer', 'Broken pipe']) answers.delete(harmless)
      expect([...answers]).toEqual(['3'])
      expect(await stage.ask('status')).toMatchObject({ count: 50 })
      await dial(ports[149], 'last')
      expect(await heard((await stage.ask('get', { body: 'v2/49' })).sockets![2])).toBe('last')
      for (const one of [holder, next]) {
        one.process.kill('SIGTERM')
        expect(await one.ended).toEqual({ code: 0, signal: null })
      }
      expect(await stage.ask('status')).toMatchObject({ count: 50 })
      expect(third.process.exitCode).toBeNull()
    })

    it('takes back what it gave when the successor is ended first', async () => {
      const [port] = await stage.put('kept')
      const next = await stage.holder()
      await stage.put('new')
      next.process.kill('SIGTERM')
      expect(await next.ended).toEqual({ code: 0, signal: null })
      expect(await stage.ask('status')).toMatchObject({ count: 2 })
      await dial(port, 'home')
      expect(await heard((await stage.ask('get', { body: 'kept' })).sockets![0])).toBe('home')
    })

    it('starts anew when the successor dies', async () => {
      await stage.put('kept')
      const before = (await stage.ask('status')).instance
      const next = await stage.holder()
      next.process.kill('SIGKILL')
      await next.ended
      await expect
        .poll(async () => (await stage.try('connect', { path: stage.path })).client, patient)
        .toBeGreaterThan(0)
      const after = await stage.ask('status')
      // What the dead one kept is lost; that it is another instance tells the agent to put it again.
      expect(after.count).toBe(0)
      expect(after.instance).not.toBe(before)
    })

    it('changes nothing while it is copied, and goes on when the copier gives up', async () => {
      await stage.put('kept')
      const taker = await stage.client()
      expect(await stage.do('request', { client: taker, kind: 'take_over' })).toMatchObject({ status: '' })
      const { socket } = await stage.do('listener')
      const busy = 'Device or resource busy'
      expect((await stage.ask('put', { body: 'more', sockets: [socket] })).status).toBe(busy)
      expect((await stage.ask('drop', { body: 'kept' })).status).toBe(busy)
      expect((await stage.ask('drop_all')).status).toBe(busy)
      expect((await stage.ask('take_over')).status).toBe(busy)
      expect((await stage.ask('commit')).status).toBe('Protocol error')
      expect((await stage.ask('get', { body: 'kept' })).sockets).toHaveLength(1)
      await stage.do('close', { thing: taker })
      await expect
        .poll(async () => (await stage.ask('put', { body: 'more', sockets: [socket] })).status, patient)
        .toBe('')
    })
  })

  it('takes the place of one that died', async () => {
    holder.process.kill('SIGKILL')
    await holder.ended
    expect(existsSync(stage.path)).toBe(true)
    await stage.holder()
    expect(await stage.ask('status')).toMatchObject({ status: '', count: 0 })
  })

  it('says what is wrong with a path', async () => {
    writeFileSync(`${stage.folder}/file`, '')
    const { Holder: Run, holderProgram } = await import('./test/holder.ts')
    const ended = async (...args: string[]) => {
      const run = new Run(holderProgram(build), args)
      return { code: (await run.ended).code, log: run.log }
    }
    expect(await ended(`/${'long/'.repeat(30)}`)).toMatchObject({
      code: 1,
      log: expect.stringContaining('too long') as string,
    })
    expect(await ended(`${stage.folder}/no/such`)).toMatchObject({ code: 1 })
    expect((await ended()).code).toBe(2)
    expect((await ended('relative')).code).toBe(2)
    expect((await ended('--linger', 'x', stage.path)).code).toBe(2)
  })
})
