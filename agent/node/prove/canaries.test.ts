import { describe, expect, it } from 'vitest'
import { Canaries } from './canaries.ts'

describe('canaries in flight', () => {
  it('land once the pod they were sent for has them', () => {
    const canaries = new Canaries()
    const landed: string[] = []
    const out = canaries.expectOutbound('one', 4, () => landed.push('out'))
    const back = canaries.expectInbound('one', () => landed.push('in'))
    expect(canaries.landedOutbound('one', out.to)).toBe(true)
    expect(canaries.landedInbound('one', back.serverName)).toBe(true)
    expect(landed).toEqual(['out', 'in'])
  })

  it('lead nowhere when they land at another pod, or too late', () => {
    const canaries = new Canaries()
    const landed: string[] = []
    const out = canaries.expectOutbound('one', 6, () => landed.push('out'))
    const back = canaries.expectInbound('one', () => landed.push('in'))
    expect(canaries.landedOutbound('two', out.to)).toBe(true)
    expect(canaries.landedInbound('two', back.serverName)).toBe(true)
    out.forget()
    back.forget()
    expect(canaries.landedOutbound('one', out.to)).toBe(true)
    expect(canaries.landedInbound('one', back.serverName)).toBe(true)
    expect(landed).toEqual([])
  })

  it('are nothing that an app would dial or ask for', () => {
    const canaries = new Canaries()
    expect(canaries.landedOutbound('one', { address: '10.96.0.7', port: 80 })).toBe(false)
    expect(canaries.landedInbound('one', '')).toBe(false)
    expect(canaries.landedInbound('one', 'web.shop.svc')).toBe(false)
    // The suffix alone is no secret.
    expect(canaries.landedInbound('one', 'guess.canary.invalid')).toBe(false)
    expect(canaries.landedInbound('one', new Canaries().expectInbound('one', () => undefined).serverName)).toBe(false)
  })

  it('are told apart, however many there are', () => {
    const canaries = new Canaries()
    const ports = new Set<number>()
    for (let i = 0; i < 1_000; i++) ports.add(canaries.expectOutbound(`pod-${i}`, 4, () => undefined).to.port)
    expect(ports.size).toBe(1_000)
    for (const port of ports) expect(port > 0 && port < 65_536).toBe(true)
  })
})
