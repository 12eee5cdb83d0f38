import { createServer } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog as log } from '../base/log.ts'
import { openAdmin } from '../telemetry/admin.ts'
import { Succession, agentAnswers, openInSuccession } from './succession.ts'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-succession-'))))
afterEach(() => rmSync(folder, { recursive: true }))

describe('an agent beside another', () => {
  it('finds the other by its local socket, and nobody where nobody listens any more', async () => {
    const path = join(folder, 'agent.sock')
    expect(await agentAnswers(path)).toBe(false)
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(path, resolve))
    expect(await agentAnswers(path)).toBe(true)
    await new Promise((resolve) => server.close(resolve))
    expect(await agentAnswers(path)).toBe(false)
  })
})

describe('a superseded agent', () => {
  const watch = (state: { leads: boolean; answers: boolean }) => {
    const clock = new ManualClock()
    let orphaned = 0
    const succession = new Succession({
      leads: () => state.leads,
      answers: async () => state.answers,
      socketPath: '/nowhere',
      clock,
      log,
      onOrphaned: () => orphaned++,
    })
    const pass = async (seconds: number): Promise<number> => {
      for (let i = 0; i < seconds; i++) {
        clock.advance(1_000)
        await new Promise(setImmediate)
      }
      return orphaned
    }
    return { pass, succession }
  }

  it('starts anew when the one that took over is gone for good, once', async () => {
    const state = { leads: true, answers: false }
    const { pass } = watch(state)
    // Nobody has taken over: whether anybody answers is nothing to it.
    expect(await pass(60)).toBe(0)
    state.leads = false
    state.answers = true
    expect(await pass(60)).toBe(0)
    state.answers = false
    expect(await pass(7)).toBe(0)
    expect(await pass(10)).toBe(1)
    expect(await pass(60)).toBe(1)
  })

  it('bears with a successor that is restarted, and with its own end', async () => {
    const state = { leads: false, answers: false }
    const { pass, succession } = watch(state)
    await pass(6)
    state.answers = true
    await pass(2)
    state.answers = false
    expect(await pass(6)).toBe(0)
    succession.close()
    expect(await pass(60)).toBe(0)
  })
})

describe('a server of fixed address', () => {
  const options = (listen: string) => ({ listen, routes: {}, localOnly: false, log })

  it('is refused where somebody else has the address', async () => {
    const other = await openAdmin(options('127.0.0.1:0'))
    await expect(openInSuccession(options(other.address), false, new ManualClock())).rejects.toMatchObject({
      code: 'ADMIN_PORT_IN_USE',
    })
    await other.close()
  })

  it('follows the agent before it as soon as that lets go', async () => {
    const clock = new ManualClock()
    const before = await openAdmin(options('127.0.0.1:0'))
    const close = await openInSuccession(options(before.address), true, clock)
    await before.close()
    const answers = async (): Promise<boolean> => {
      clock.advance(250)
      return (await fetch(`http://${before.address}/`).catch(() => undefined))?.status === 200
    }
    await expect.poll(answers).toBe(true)
    await close()
    expect(await fetch(`http://${before.address}/`).catch(() => 'closed')).toBe('closed')
  })

  it('is not opened any more once it was closed', async () => {
    const clock = new ManualClock()
    const before = await openAdmin(options('127.0.0.1:0'))
    const close = await openInSuccession(options(before.address), true, clock)
    await close()
    await before.close()
    clock.advance(10_000)
    await new Promise(setImmediate)
    expect(await fetch(`http://${before.address}/`).catch(() => 'closed')).toBe('closed')
  })
})
