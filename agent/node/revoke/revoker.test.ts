// When open connections are judged, and by what. The kernel's part is played by a list; the real one has its own test
// (test/kernel/open.test.ts).
import { beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog, type Logger } from '../../base/log.ts'
import { STATIC_STRICT } from '../../mesh/peer-authentication.ts'
import type { Policy } from '../../mesh/policy.ts'
import { samplePolicy } from '../../mesh/samples.ts'
import { MeshState } from '../../mesh/state.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { workloadFor } from '../enroll/testing.ts'
import type { JudgedOpen, OlderConnection } from '../redirect/contract.ts'
import { Revoker } from './revoker.ts'

/** PeerAuthentication STRICT as control translates it. */
const STRICT: Policy = {
  ...samplePolicy('DENY', { notPrincipals: [{ type: 'presence' }] }),
  namespace: 'istio-system',
  name: STATIC_STRICT,
  scope: 'workload',
}

const pod: RegisteredPod = { uid: 'web', namespace: 'shop', name: 'web', netns: '', addresses: ['10.1.0.5'] }
const db: RegisteredPod = { uid: 'db', namespace: 'shop', name: 'db', netns: '', addresses: ['10.1.0.6'] }

describe('open connections', () => {
  let clock: ManualClock
  let mesh: MeshState
  let known: boolean
  let revoker: Revoker
  let runs: string[]
  let refused: string[]
  let logged: string[]
  /** Open in the pods, or what the kernel answers instead. */
  let open: OlderConnection[] | Error | undefined

  const older = (address: string, port: number): OlderConnection => ({
    client: { address, port: 40_000 },
    local: { address: '10.1.0.5', port },
  })
  const strict = (): void => {
    mesh.setPolicy(STRICT)
    mesh.setWorkload(workloadFor(pod, { authorizationPolicies: [`istio-system/${STATIC_STRICT}`] }))
  }
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms)
    await revoker.settled()
  }

  beforeEach(() => {
    clock = new ManualClock()
    mesh = new MeshState()
    mesh.setWorkload(workloadFor(pod))
    mesh.setWorkload(workloadFor(db))
    known = true
    runs = []
    refused = []
    logged = []
    open = [older('10.9.0.1', 80), older('10.9.0.2', 81)]
    const say = (_: unknown, text: string): number => logged.push(text)
    revoker = new Revoker({
      node: 'one',
      redirect: {
        async judgeOpen(uid, allowed): Promise<JudgedOpen | undefined> {
          runs.push(uid)
          if (open instanceof Error) throw open
          if (!open || uid !== pod.uid) return open && { left: 0, ended: 0 }
          const left = open.filter(allowed)
          const ended = open.length - left.length
          open = left
          return { left: left.length, ended }
        },
      },
      view: () => (known ? mesh : undefined),
      refusals: { count: (direction, reason) => refused.push(`${direction} ${reason}`) },
      clock,
      log: Object.assign(Object.create(silentLog) as Logger, { info: say, warn: say, error: say }),
    })
  })

  it('are judged when their pod is captured, and left where policy lets plaintext in', async () => {
    revoker.addPod(pod)
    await revoker.settled()
    expect(runs).toEqual(['web'])
    expect([open, refused, revoker.ended]).toMatchObject([{ length: 2 }, [], 0])
  })

  it('are ended where the pod is STRICT, and counted by the reason', async () => {
    strict()
    revoker.addPod(pod)
    await revoker.settled()
    expect(open).toEqual([])
    expect(refused).toEqual(['inbound deny_matched', 'inbound deny_matched'])
    expect(revoker.ended).toBe(2)
    expect(logged).toEqual(['connections older than the capture were ended'])
  })

  it('are judged again at a change as long as there are any, changes being gathered', async () => {
    revoker.addPod(pod)
    revoker.addPod(db)
    await revoker.settled()
    for (let i = 0; i < 5; i++) revoker.changed()
    await pass(20)
    expect(runs).toEqual(['web', 'db', 'web'])
    strict()
    revoker.changed()
    await pass(20)
    expect(open).toEqual([])
    revoker.changed()
    await pass(1_000)
    expect(runs).toEqual(['web', 'db', 'web', 'web'])
  })

  it('are judged for a pod whose verdicts were replaced, once for several replacements', async () => {
    revoker.addPod(db)
    await revoker.settled()
    revoker.tablesReplaced(['db', 'gone'])
    revoker.tablesReplaced(['db'])
    await revoker.settled()
    expect(runs.filter((uid) => uid === 'db').length).toBeLessThanOrEqual(3)
    expect(runs).not.toContain('gone')
  })

  it('wait for the state, and for their pod to be known', async () => {
    known = false
    strict()
    revoker.addPod(pod)
    await revoker.settled()
    expect(open).toHaveLength(2)
    known = true
    revoker.changed()
    await pass(20)
    expect(open).toEqual([])
  })

  it('are judged again after the kernel failed, and that is said', async () => {
    open = new Error('no memory')
    revoker.addPod(pod)
    await revoker.settled()
    expect(logged).toEqual(['open connections were not judged; the next change tries again'])
    open = []
    revoker.changed()
    await pass(20)
    expect(runs).toEqual(['web', 'web'])
  })

  it('are left alone by a kernel that cannot end them, which is said once', async () => {
    open = undefined
    revoker.addPod(pod)
    revoker.addPod(db)
    await revoker.settled()
    revoker.changed()
    await pass(20)
    expect(runs).toEqual(['web', 'db'])
    expect(logged).toEqual(['this kernel cannot end open connections: those that policy refuses by now are left alone'])
  })

  it('are nobody’s once the pod has left or the agent stops', async () => {
    revoker.addPod(pod)
    revoker.removePod('web')
    await revoker.settled()
    revoker.addPod(db)
    await revoker.close()
    revoker.addPod(pod)
    await revoker.settled()
    expect(runs.filter((uid) => uid === 'web').length).toBeLessThanOrEqual(1)
  })
})
