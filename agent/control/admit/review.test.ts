import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { review } from './review.ts'

const service = (destination: object, more: object = {}): object => ({
  apiVersion: 'networking.istio.io/v1',
  kind: 'VirtualService',
  metadata: { name: 'reviews', namespace: 'shop', ...more },
  spec: { hosts: ['reviews'], http: [{ route: [{ destination }] }] },
})

describe('an admission review', () => {
  it('allows what is good, also when it refers to what is not there yet', () => {
    expect(review({ uid: 'u', object: service({ host: 'not-there-yet' }) })).toEqual({ uid: 'u', allowed: true })
  })

  it('refuses what is bad, with the field and the fix, in the message and as causes', () => {
    const { allowed, status } = review({ uid: 'u', object: service({ hots: 'reviews' }) })
    expect(allowed).toBe(false)
    expect(status).toMatchObject({ code: 422, reason: 'Invalid', details: { name: 'reviews', kind: 'VirtualService' } })
    expect(status?.message).toMatch(/^VirtualService shop\/reviews: spec\.http\[0\]\.route\[0\]\.destination/)
    expect(status?.details.causes.map((one) => one.field)).toContain('spec.http[0].route[0].destination.hots')
  })

  it('warns of what has no effect', () => {
    const object = {
      ...service({ host: 'reviews' }),
      spec: {
        hosts: ['reviews'],
        exportTo: ['.'],
        http: [{ route: [{ destination: { host: 'reviews' } }], mirror: { host: 'x' } }],
      },
    }
    const answer = review({ uid: 'u', object })
    expect(answer.allowed).toBe(true)
    expect(answer.warnings?.join('\n')).toMatch(/spec\.http\[0\]\.mirror/)
    for (const one of answer.warnings ?? []) expect(Buffer.byteLength(one)).toBeLessThanOrEqual(256)
  })

  it('lets a bad one that is there already be touched otherwise, and be deleted', () => {
    const bad = service({ hots: 'reviews' })
    const touched = service({ hots: 'reviews' }, { finalizers: ['a'] })
    expect(review({ uid: 'u', object: touched, oldObject: bad })).toMatchObject({ allowed: true })
    const going = service({ hots: 'reviews' }, { deletionTimestamp: '2030-01-01T00:00:00Z' })
    expect(review({ uid: 'u', object: going, oldObject: service({ host: 'reviews' }) })).toMatchObject({
      allowed: true,
    })
  })

  it('has nothing to say of kinds that are none of the mesh', () => {
    const object = { apiVersion: 'example.com/v1', kind: 'Thing', metadata: { name: 'x' } }
    expect(review({ uid: 'u', object })).toEqual({ uid: 'u', allowed: true })
  })

  it('answers anything at all, and keeps the uid', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (object, oldObject) => {
        expect(review({ uid: 'u', object, oldObject }).uid).toBe('u')
      }),
    )
  })
})
