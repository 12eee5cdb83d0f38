import { describe, expect, it } from 'vitest'
import { ManualClock } from './clock.ts'
import { Lifecycle } from './lifecycle.ts'

describe('Lifecycle', () => {
  it('stops in reverse order, once', async () => {
    const order: string[] = []
    const life = new Lifecycle({ deadlineMs: 1000, clock: new ManualClock() })
    life.onStop('first', () => void order.push('first'))
    life.onStop('second', async () => {
      await Promise.resolve()
      order.push('second')
    })
    void life.stop('test')
    expect(await life.stop('again')).toEqual({ reason: 'test', clean: true })
    expect(order).toEqual(['second', 'first'])
  })

  it('goes on after a step that fails and says so', async () => {
    const problems: string[] = []
    const order: string[] = []
    const life = new Lifecycle({ deadlineMs: 1000, clock: new ManualClock(), onProblem: (step) => problems.push(step) })
    life.onStop('good', () => void order.push('good'))
    life.onStop('bad', () => Promise.reject(new Error('no')))
    expect(await life.stop('x')).toEqual({ reason: 'x', clean: false })
    expect([problems, order]).toEqual([['bad'], ['good']])
  })

  it('ends at the deadline and names the step that hangs', async () => {
    const clock = new ManualClock()
    const problems: string[] = []
    const life = new Lifecycle({ deadlineMs: 1000, clock, onProblem: (step) => problems.push(step) })
    life.onStop('hangs', () => new Promise(() => {}))
    const ended = life.stop('x')
    clock.advance(1000)
    expect(await ended).toEqual({ reason: 'x', clean: false })
    expect(problems).toEqual(['hangs'])
  })

  it('reloads on SIGHUP, which does not end it, and not while it stops', async () => {
    let reloads = 0
    const life = new Lifecycle({ deadlineMs: 1000, clock: new ManualClock() })
    const off = life.onReload(() => void reloads++)
    process.emit('SIGHUP')
    await life.stop('x')
    process.emit('SIGHUP')
    off()
    expect([reloads, process.listenerCount('SIGHUP')]).toEqual([1, 0])
  })

  it('stops on a signal and leaves at once on the second', async () => {
    const codes: number[] = []
    const life = new Lifecycle({ deadlineMs: 1000, clock: new ManualClock() })
    const gate = Promise.withResolvers<void>()
    life.onStop('slow', () => gate.promise)
    const off = life.onSignals((code) => codes.push(code))
    process.emit('SIGTERM')
    expect(life.stopping).toBe(true)
    process.emit('SIGINT')
    expect(codes).toEqual([130])
    gate.resolve()
    expect(await life.ended).toEqual({ reason: 'SIGTERM', clean: true })
    off()
    expect(process.listenerCount('SIGTERM')).toBe(0)
  })
})
