// Enrolment end to end below the tunnel: the local API, the mesh's state, the kernel, real connections.
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../agent/base/clock.ts'
import { silentLog } from '../../agent/base/log.ts'
import { transport } from '../../agent/io/index.ts'
import type { Listener } from '../../agent/io/connection.ts'
import type { MeshState } from '../../agent/mesh/state.ts'
import type { Enrollment, RegisteredPod } from '../../agent/node/enroll/contract.ts'
import { startEnrollment } from '../../agent/node/enroll/enrollment.ts'
import { shopMesh, workloadFor } from '../../agent/node/enroll/testing.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { Queue, TestNode } from './node.ts'

describe('enrolment on a real node', () => {
  let node: TestNode
  let mesh: MeshState
  let folder: string
  let enrollment: Enrollment
  let pod: Pod
  let app: Sockets
  let outbound: Queue
  const listening = new Map<string, Listener>()

  async function start(): Promise<void> {
    enrollment = await startEnrollment({
      node: 'one',
      redirect: node.redirect,
      view: () => mesh,
      socketPath: join(folder, 'agent.sock'),
      stateDir: join(folder, 'state'),
      log: silentLog,
      clock: systemClock,
      onEnrolled: async ({ uid }, listeners) => {
        listening.set(uid, await transport.listen({ fd: listeners.outbound, handler: outbound }))
      },
      onUnenrolled: async ({ uid }) => listening.get(uid)?.stop(),
    })
  }

  /** One request over the socket, as a CNI plugin makes it. */
  function ask(request: object): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const socket = connect(join(folder, 'agent.sock'), () => socket.end(`${JSON.stringify(request)}\n`))
      let text = ''
      socket.setEncoding('utf8')
      socket.on('data', (chunk: string) => (text += chunk))
      socket.on('error', reject)
      socket.on('close', () => resolve(JSON.parse(text) as Record<string, unknown>))
    })
  }

  const registration = (): RegisteredPod => ({
    uid: pod.name,
    namespace: 'shop',
    name: 'web',
    netns: pod.netns,
    addresses: [pod.v4, pod.v6],
  })
  const dial = { to: '10.96.0.7', port: 80, timeout: 0.5 }

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-enroll-'))
    node = await TestNode.open()
    mesh = shopMesh()
    pod = node.world.pod()
    app = node.world.sockets(pod)
    outbound = new Queue(() => node.redirect)
    await start()
  })
  afterEach(async () => {
    await enrollment.close()
    for (const listener of listening.values()) await listener.stop()
    listening.clear()
    await node.close()
    rmSync(folder, { recursive: true, force: true })
  })

  it('captures a pod before `add` answers and releases it before `del` does', async () => {
    expect(await ask({ op: 'add', ...registration() })).toMatchObject({ ok: true, enrolled: true })
    await app.must('connect', dial)
    expect((await outbound.next()).original).toEqual({ address: dial.to, port: dial.port })
    expect(await ask({ op: 'del', uid: pod.name })).toMatchObject({ ok: true, removed: true })
    // Plain again: there is nobody at that address.
    expect((await app.call('connect', dial)).error).toMatch(/ETIMEDOUT|EHOSTUNREACH|ENETUNREACH/)
    expect(outbound.length).toBe(0)
  })

  it('follows the label both ways while the pod runs', async () => {
    mesh.setWorkload(workloadFor(registration(), { tunnelProtocol: 'NONE' }))
    expect(await ask({ op: 'add', ...registration() })).toMatchObject({ ok: true, phase: 'out' })
    expect((await app.call('connect', dial)).error).toBeDefined()
    for (let round = 0; round < 2; round++) {
      mesh.setWorkload(workloadFor(registration()))
      enrollment.changed()
      await enrollment.settled()
      await app.must('connect', dial)
      expect((await outbound.next()).original).toEqual({ address: dial.to, port: dial.port })
      mesh.setWorkload(workloadFor(registration(), { tunnelProtocol: 'NONE' }))
      enrollment.changed()
      await enrollment.settled()
      expect((await app.call('connect', dial)).error).toBeDefined()
    }
  })

  it('captures its pods again after a restart, without being told of them', async () => {
    await ask({ op: 'add', ...registration() })
    await enrollment.close()
    await listening.get(pod.name)?.stop()
    await node.die()
    expect(await app.call('connect', dial)).toEqual({ error: 'ECONNREFUSED' })
    await node.restart()
    expect(await app.call('connect', dial)).toEqual({ error: 'ECONNREFUSED' })
    await start()
    await enrollment.settled()
    expect(await ask({ op: 'check', uid: pod.name })).toMatchObject({ ok: true, enrolled: true })
    await app.must('connect', dial)
    expect((await outbound.next()).original).toEqual({ address: dial.to, port: dial.port })
  })

  it('says which namespace it cannot enter', async () => {
    expect(await ask({ op: 'add', ...registration(), netns: '/etc/hostname' })).toMatchObject({
      ok: false,
      code: 'ENROLL_FAILED',
    })
    expect(await ask({ op: 'add', ...registration(), netns: '/run/netns/no-such' })).toMatchObject({
      ok: false,
      code: 'ENROLL_NO_NAMESPACE',
    })
  })
})
