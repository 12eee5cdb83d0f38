import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { strategicMerge } from './strategic-merge.ts'

const POD = {
  nodeSelector: { disk: 'ssd' },
  containers: [
    {
      name: 'waypoint',
      image: 'ambit:1',
      args: ['waypoint', '--name', 'w'],
      env: [{ name: 'A', value: '1' }],
      ports: [
        { containerPort: 15008, name: 'mesh' },
        { containerPort: 15020, name: 'metrics' },
      ],
      resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '1Gi' } },
    },
  ],
  volumes: [{ name: 'token', emptyDir: {} }],
}

describe('a strategic merge', () => {
  it('goes field by field, and by key through the lists that have one', () => {
    const patch = {
      replicas: 3,
      containers: [
        {
          name: 'waypoint',
          env: [
            { name: 'B', value: '2' },
            { name: 'A', value: '3' },
          ],
          ports: [{ containerPort: 15008, hostPort: 1 }],
          resources: { limits: { memory: '2Gi', cpu: '4' } },
        },
        { name: 'helper', image: 'helper:1' },
      ],
      volumes: [{ name: 'more', emptyDir: {} }],
    }
    expect(strategicMerge(POD, patch)).toEqual({
      ...POD,
      replicas: 3,
      containers: [
        {
          ...POD.containers[0],
          env: [
            { name: 'A', value: '3' },
            { name: 'B', value: '2' },
          ],
          ports: [
            { containerPort: 15008, name: 'mesh', hostPort: 1 },
            { containerPort: 15020, name: 'metrics' },
          ],
          resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '2Gi', cpu: '4' } },
        },
        { name: 'helper', image: 'helper:1' },
      ],
      volumes: [
        { name: 'token', emptyDir: {} },
        { name: 'more', emptyDir: {} },
      ],
    })
  })

  it('replaces lists without a key, and those that are told so', () => {
    const { containers } = strategicMerge(POD, {
      containers: [{ name: 'waypoint', args: ['only'], env: [{ $patch: 'replace' }, { name: 'C' }] }],
    }) as typeof POD
    expect(containers[0]).toMatchObject({ args: ['only'], env: [{ name: 'C' }], image: 'ambit:1' })
    // An item without the key: nothing says which one is meant.
    expect(strategicMerge(POD, { volumes: [{ emptyDir: {} }] })).toMatchObject({ volumes: [{ emptyDir: {} }] })
  })

  it('takes away what is null or marked so', () => {
    expect(
      strategicMerge(POD, {
        nodeSelector: null,
        containers: [
          {
            name: 'waypoint',
            resources: { limits: { $patch: 'delete' } },
            ports: [{ containerPort: 15020, $patch: 'delete' }],
          },
        ],
        volumes: [
          { name: 'token', $patch: 'delete' },
          { name: 'absent', $patch: 'delete' },
        ],
      }),
    ).toEqual({
      containers: [
        {
          name: 'waypoint',
          image: 'ambit:1',
          args: ['waypoint', '--name', 'w'],
          env: [{ name: 'A', value: '1' }],
          ports: [{ containerPort: 15008, name: 'mesh' }],
          resources: { requests: { cpu: '100m', memory: '128Mi' } },
        },
      ],
      volumes: [],
    })
    expect(strategicMerge({ a: { b: 1 } }, { a: { $patch: 'replace', c: null, d: 1 } })).toEqual({ a: { d: 1 } })
  })

  it('changes nothing with itself, says the same twice, and leaves both as they were', () => {
    const json = fc.jsonValue({ maxDepth: 4 })
    const map = fc.dictionary(fc.constantFrom('a', 'b', 'containers', 'env', 'ports', '__proto__'), json)
    fc.assert(
      fc.property(map, map, (base, patch) => {
        const before = JSON.stringify([base, patch])
        const once = strategicMerge(base, patch)
        expect(JSON.stringify(strategicMerge(once, patch))).toBe(JSON.stringify(once))
        expect(JSON.stringify([base, patch])).toBe(before)
        expect(({} as Record<string, unknown>)['a']).toBeUndefined()
      }),
    )
  })

  it('refuses what is nested without end', () => {
    let deep: unknown = 1
    for (let level = 0; level < 10_000; level++) deep = { a: deep }
    expect(() => strategicMerge({}, deep)).toThrow(RangeError)
  })
})
