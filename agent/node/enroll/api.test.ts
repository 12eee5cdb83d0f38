import { rmSync, statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog } from '../../base/log.ts'
import { MAX_LINE, openApi } from './api.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { Enrollment } from './contract.ts'
import { startEnrollment } from './enrollment.ts'
import { Books, Folder, shopMesh } from './testing.ts'

/** A client as the sandbox or a CNI plugin is one. */
class Client {
  readonly socket: Socket
  readonly #lines: AsyncIterator<string>
  constructor(path: string) {
    this.socket = connect(path)
    this.socket.on('error', () => undefined)
    const reader: Interface = createInterface({ input: this.socket })
    this.#lines = reader[Symbol.asyncIterator]()
  }
  send(text: string): void {
    this.socket.write(text)
  }
  async read(): Promise<Record<string, unknown> | undefined> {
    const { value, done } = await this.#lines.next()
    return done ? undefined : (JSON.parse(value as string) as Record<string, unknown>)
  }
  ask(request: unknown): Promise<Record<string, unknown> | undefined> {
    this.send(`${typeof request === 'string' ? request : JSON.stringify(request)}\n`)
    return this.read()
  }
}

describe('the local API', () => {
  let folder: Folder
  let enrollment: Enrollment
  let path: string
  let client: Client
  let state: MeshState | undefined

  beforeEach(async () => {
    folder = new Folder()
    state = shopMesh()
    path = join(folder.path, 'run/agent.sock')
    enrollment = await startEnrollment({
      node: 'one',
      redirect: new Books(),
      view: () => state,
      socketPath: path,
      stateDir: join(folder.path, 'state'),
      log: silentLog,
      clock: new ManualClock(),
      onEnrolled: () => undefined,
      onUnenrolled: () => undefined,
    })
    client = new Client(path)
  })
  afterEach(async () => {
    client.socket.destroy()
    await enrollment.close()
    folder.remove()
  })

  it('is for its owner only', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(join(folder.path, 'run')).mode & 0o777).toBe(0o700)
  })

  it('adds, lists, checks and removes', async () => {
    const pod = folder.pod('web')
    const captured = { ...pod, phase: 'captured', enrolled: true }
    expect(await client.ask({ op: 'add', ...pod })).toMatchObject({ ok: true, ...captured })
    expect(await client.ask({ op: 'list' })).toMatchObject({ ok: true, pods: [captured] })
    expect(await client.ask({ op: 'check', uid: pod.uid })).toMatchObject({ ok: true, ...captured })
    expect(await client.ask({ op: 'del', uid: pod.uid })).toEqual({ ok: true, removed: true })
    expect(await client.ask({ op: 'del', uid: pod.uid })).toEqual({ ok: true, removed: false })
    expect(await client.ask({ op: 'check', uid: pod.uid })).toMatchObject({ ok: false, code: 'ENROLL_UNKNOWN_POD' })
  })

  it('tells sandboxes of one pod apart', async () => {
    const pod = folder.pod('web')
    const { uid } = pod
    expect(await client.ask({ op: 'add', ...pod, sandbox: 'second' })).toMatchObject({ ok: true, enrolled: true })
    // The runtime cleans up after the first, which failed.
    expect(await client.ask({ op: 'del', uid, sandbox: 'first' })).toEqual({ ok: true, removed: false })
    expect(await client.ask({ op: 'check', uid, sandbox: 'first' })).toMatchObject({ code: 'ENROLL_UNKNOWN_POD' })
    expect(await client.ask({ op: 'check', uid, sandbox: 'second' })).toMatchObject({ ok: true, enrolled: true })
    const found = folder.pod('found')
    await client.ask({ op: 'add', ...found })
    expect(await client.ask({ op: 'check', uid: found.uid, sandbox: 'any' })).toMatchObject({ ok: true })
    // Its end is not believed, and seen when its namespace goes.
    expect(await client.ask({ op: 'del', uid: found.uid, sandbox: 'any' })).toEqual({ ok: true, removed: false })
    expect(await client.ask({ op: 'del', uid, sandbox: 5 })).toMatchObject({ code: 'ENROLL_BAD_REQUEST' })
    expect(await client.ask({ op: 'del', uid, sandbox: 'second' })).toEqual({ ok: true, removed: true })
    expect(await client.ask({ op: 'del', uid, sandbox: 'second' })).toEqual({ ok: true, removed: false })
  })

  it('forgets what is gone when asked to look', async () => {
    const pod = folder.pod('web')
    await client.ask({ op: 'add', ...pod })
    rmSync(pod.netns)
    expect(await client.ask({ op: 'sweep' })).toEqual({ ok: true })
    await enrollment.settled()
    expect(await client.ask({ op: 'list' })).toEqual({ ok: true, pods: [] })
  })

  it('says that a pod stays out', async () => {
    const pod = folder.pod('web', { namespace: 'plain' })
    expect(await client.ask({ op: 'add', ...pod })).toMatchObject({ ok: true, phase: 'out', enrolled: false })
  })

  it.each([
    ['not json', 'ENROLL_BAD_REQUEST'],
    ['[]', 'ENROLL_BAD_REQUEST'],
    ['{"op":"fly"}', 'ENROLL_UNKNOWN_OP'],
    ['{}', 'ENROLL_UNKNOWN_OP'],
    ['{"op":"del"}', 'ENROLL_BAD_REQUEST'],
    ['{"op":"add","uid":"x"}', 'ENROLL_BAD_REQUEST'],
  ])('refuses %s by code and goes on', async (line, code) => {
    expect(await client.ask(line)).toMatchObject({ ok: false, code })
    expect(await client.ask({ op: 'list' })).toMatchObject({ ok: true })
  })

  it('answers requests that come together in their order, and after the client’s half-close', async () => {
    client.send('{"op":"list"}\n\n{"op":"no"}\n{"op":"li')
    client.send('st"}\n')
    client.socket.end()
    expect(await client.read()).toMatchObject({ ok: true })
    expect(await client.read()).toMatchObject({ ok: false })
    expect(await client.read()).toMatchObject({ ok: true })
    expect(await client.read()).toBeUndefined()
  })

  it('refuses a line without an end and closes', async () => {
    client.send('x'.repeat(MAX_LINE + 1))
    expect(await client.read()).toMatchObject({ ok: false, code: 'ENROLL_LINE_TOO_LONG' })
    expect(await client.read()).toBeUndefined()
  })

  it('leaves the socket to an agent that took it over', async () => {
    const successor = await openApi(path, enrollment, silentLog)
    await enrollment.close()
    const other = new Client(path)
    expect(await other.ask({ op: 'list' })).toMatchObject({ ok: true })
    other.socket.destroy()
    await successor.close()
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined()
  })

  it('refuses a path that no socket can have', async () => {
    await expect(openApi(`/tmp/${'x'.repeat(120)}`, enrollment, silentLog)).rejects.toMatchObject({
      code: 'ENROLL_SOCKET',
    })
  })
})
