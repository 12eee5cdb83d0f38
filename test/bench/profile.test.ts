import { describe, expect, it } from 'vitest'
import { summarise, topText } from './profile.ts'

const frame = (functionName: string, url = '', lineNumber = -1) => ({ functionName, url, lineNumber })

describe('a CPU profile is summed', () => {
  const text = JSON.stringify({
    nodes: [
      { id: 1, callFrame: frame('(root)') },
      { id: 2, callFrame: frame('parse', 'file:///src/agent/head.ts', 9) },
      // The same function called from elsewhere is another node.
      { id: 3, callFrame: frame('parse', 'file:///src/agent/head.ts', 9) },
      { id: 4, callFrame: frame('(idle)') },
      { id: 5, callFrame: frame('', 'node:net', 0) },
    ],
    samples: [2, 3, 4, 5, 1],
    timeDeltas: [500, 1000, 2000, 4000, 1000],
  })

  it('gives each sample the time until the next, joins the nodes of one function, and leaves idle time out of the shares', () => {
    const summary = summarise(text, { root: '/src' })
    expect(summary.totalMs).toBe(8)
    expect(summary.idleMs).toBe(4)
    expect(summary.functions).toEqual([
      { name: 'parse', place: 'agent/head.ts:10', selfMs: 3, share: 0.75 },
      { name: '(anonymous)', place: 'node:net:1', selfMs: 1, share: 0.25 },
      { name: '(root)', place: '', selfMs: 0, share: 0 },
    ])
  })

  it('leaves out what was recorded before a time', () => {
    expect(summarise(text, { root: '/src', skipMs: 3 }).functions.map(({ name }) => name)).toEqual([
      '(anonymous)',
      '(root)',
    ])
  })

  it('prints the longest first, no more than asked for', () => {
    const lines = topText(summarise(text, { root: '/src' }), 1).split('\n')
    expect(lines[0]).toContain('50 % of it busy')
    expect(lines).toHaveLength(2)
    expect(lines[1]).toMatch(/75\.0 % .* parse +agent\/head\.ts:10$/)
  })

  it('says how much of the CPU time V8 did not see', () => {
    const lines = topText(summarise(text, { root: '/src' }), 1, 16).split('\n')
    expect(lines[1]).toContain('16 ms, of it 12 ms (75 %)')
  })

  it('refuses what is no profile', () => {
    expect(() => summarise('{}')).toThrow('no CPU profile')
    expect(() => summarise('{"nodes":[],"samples":[7],"timeDeltas":[1]}')).toThrow('unknown node 7')
  })
})
