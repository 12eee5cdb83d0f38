import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { RegisteredPod } from './contract.ts'
import { plan, type Known } from './plan.ts'

const pod = (uid: string, netns = `/run/netns/${uid}`): RegisteredPod => ({
  uid,
  namespace: 'shop',
  name: uid,
  netns,
  addresses: ['10.1.0.5'],
})

function known(change: Partial<Known>): Known {
  return {
    registered: new Map(),
    captured: new Map(),
    inKernel: new Set(),
    released: new Set(),
    alive: () => true,
    wanted: () => ({ verdict: 'in', reason: 'so' }),
    ...change,
  }
}
const steps = (change: Partial<Known>): string[] =>
  plan(known(change)).map((step) => `${step.do} ${step.do === 'enroll' ? step.pod.uid : step.uid}`)
const a = new Map([['a', pod('a')]])
const out: Known['wanted'] = () => ({ verdict: 'out', reason: 'so' })
const unknown: Known['wanted'] = () => ({ verdict: 'unknown', reason: 'so' })

describe('the plan', () => {
  it('enrols a wanted pod, also one an earlier agent left in the kernel', () => {
    expect(steps({ registered: a })).toEqual(['enroll a'])
    expect(steps({ registered: a, inKernel: new Set(['a']) })).toEqual(['enroll a'])
  })

  it('has nothing to do for a captured pod', () => {
    expect(steps({ registered: a, captured: a, inKernel: new Set(['a']) })).toEqual([])
  })

  it('releases a pod that is not wanted any more, captured here or left by an earlier agent', () => {
    expect(steps({ registered: a, captured: a, wanted: out })).toEqual(['unenroll a'])
    expect(steps({ registered: a, inKernel: new Set(['a']), wanted: out })).toEqual(['unenroll a'])
  })

  it('changes nothing while it cannot know', () => {
    expect(steps({ registered: a, captured: a, wanted: unknown })).toEqual([])
    expect(steps({ registered: a, inKernel: new Set(['a']), wanted: unknown })).toEqual([])
  })

  it('releases what was removed, and leaves closed what nobody registered', () => {
    expect(steps({ captured: a, inKernel: new Set(['a']) })).toEqual(['unenroll a'])
    expect(steps({ inKernel: new Set(['a']) })).toEqual([])
    expect(steps({ inKernel: new Set(['a']), released: new Set(['a']) })).toEqual(['unenroll a'])
  })

  it('forgets a pod whose namespace is gone', () => {
    expect(steps({ registered: a, captured: a, alive: () => false })).toEqual(['unenroll a', 'forget a'])
    expect(steps({ registered: a, alive: () => false })).toEqual(['forget a'])
  })

  it('enrols a changed pod anew, letting go of its old namespace first', () => {
    const moved = new Map([['a', pod('a', '/run/netns/new')]])
    expect(steps({ registered: moved, captured: a })).toEqual(['unenroll a', 'enroll a'])
    const renumbered = new Map([['a', { ...pod('a'), addresses: ['10.1.0.6'] }]])
    expect(steps({ registered: renumbered, captured: a })).toEqual(['enroll a'])
  })

  it('done once leaves nothing to do, whatever the start', () => {
    const uids = ['a', 'b', 'c', 'd']
    const some = fc.subarray(uids)
    const verdicts = fc.array(fc.constantFrom('in', 'out', 'unknown' as const), { minLength: 4, maxLength: 4 })
    fc.assert(
      fc.property(some, some, some, some, some, verdicts, (registered, captured, inKernel, released, dead, verdict) => {
        const state = known({
          registered: new Map(registered.map((uid) => [uid, pod(uid)])),
          // What is captured is in the kernel.
          captured: new Map(captured.map((uid) => [uid, pod(uid)])),
          inKernel: new Set([...inKernel, ...captured]),
          released: new Set(released),
          alive: ({ uid }) => !dead.includes(uid),
          wanted: ({ uid }) => ({ verdict: verdict[uids.indexOf(uid)]!, reason: 'so' }),
        })
        const after = {
          registered: new Map(state.registered),
          captured: new Map(state.captured),
          inKernel: new Set(state.inKernel),
        }
        for (const step of plan(state)) {
          if (step.do === 'forget') after.registered.delete(step.uid)
          else if (step.do === 'enroll') {
            after.captured.set(step.pod.uid, step.pod)
            after.inKernel.add(step.pod.uid)
          } else {
            after.captured.delete(step.uid)
            after.inKernel.delete(step.uid)
          }
        }
        expect(plan({ ...state, ...after })).toEqual([])
        // And what is wanted, registered and alive is captured; what is unwanted is not.
        for (const [uid, { name }] of after.registered) {
          const decided = verdict[uids.indexOf(uid)]
          if (decided === 'in') expect(after.captured.has(uid), name).toBe(true)
          if (decided === 'out') expect(after.inKernel.has(uid), name).toBe(false)
        }
      }),
    )
  })
})
