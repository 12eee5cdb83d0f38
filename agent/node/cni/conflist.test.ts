import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chain, hasEntry, isChained, isOnlyListOf, listOf, unchain } from './conflist.ts'

const entry = { socket: '/run/ambit/agent.sock', exemptNamespaces: ['ambit-system', 'kube-system'] }
const mine = { type: 'ambit-cni', ...entry }
const bridge = { type: 'bridge', bridge: 'cni0' }
const list = (plugins: readonly object[], more: object = {}): string =>
  JSON.stringify({ cniVersion: '1.0.0', name: 'net', plugins, ...more })
const pluginsOf = (text: string): unknown => (JSON.parse(text) as { plugins: unknown }).plugins

describe('the entry in a conflist', () => {
  it('goes to the end, and leaves every byte of others where it is', () => {
    const text = `{
  "name" : "k8s-pod-network", "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico", "mtu": 1e3, "big": 12345678901234567890,
      "policy": {"2": 1, "1": "\\u00e9/\\/"}
    },
    { "type": "portmap", "snat": true }
  ],
  "zebra": null
}
`
    expect(chain(text, entry)).toBe(`{
  "name" : "k8s-pod-network", "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico", "mtu": 1e3, "big": 12345678901234567890,
      "policy": {"2": 1, "1": "\\u00e9/\\/"}
    },
    { "type": "portmap", "snat": true },
    {
      "type": "ambit-cni",
      "socket": "/run/ambit/agent.sock",
      "exemptNamespaces": [
        "ambit-system",
        "kube-system"
      ]
    }
  ],
  "zebra": null
}
`)
  })

  it('is written on one line where the list is', () => {
    expect(chain('{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"}]}', entry)).toBe(
      `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},${JSON.stringify(mine)}]}`,
    )
  })

  it('stays where it is, is put right, and is there once', () => {
    const stale = { ...mine, socket: '/old' }
    const cases: [object[], object[]][] = [
      [
        [bridge, mine],
        [bridge, mine],
      ],
      [
        [bridge, mine, { type: 'istio-cni' }],
        [bridge, mine, { type: 'istio-cni' }],
      ],
      [
        [bridge, stale, { type: 'x' }],
        [bridge, mine, { type: 'x' }],
      ],
      [
        [bridge, mine, { type: 'x' }, mine, stale],
        [bridge, mine, { type: 'x' }],
      ],
      // Before the one that makes the interface it would find no result.
      [
        [mine, bridge],
        [bridge, mine],
      ],
      [
        [stale, bridge, stale],
        [bridge, mine],
      ],
    ]
    for (const [before, after] of cases) {
      const text = list(before)
      expect(pluginsOf(chain(text, entry))).toEqual(after)
      expect(isChained(text, entry)).toBe(JSON.stringify(before) === JSON.stringify(after))
      expect(hasEntry(text)).toBe(true)
    }
    expect(chain(list([bridge, mine]), entry)).toBe(list([bridge, mine]))
    expect(hasEntry(list([bridge]))).toBe(false)
  })

  it.each([
    ['', 'CNI_CONFIG'],
    ['{', 'CNI_CONFIG'],
    ['[]', 'CNI_CONFIG'],
    ['{}', 'CNI_CONFIG'],
    [list([]), 'CNI_CONFIG'],
    ['{"cniVersion":"1.0.0","plugins":{}}', 'CNI_CONFIG'],
    ['{"cniVersion":"1.0.0","plugins":[{}]}', 'CNI_CONFIG'],
    [list([mine]), 'CNI_CONFIG'],
    [list([bridge], { cniVersion: '0.2.0' }), 'CNI_VERSION'],
    [list([bridge], { cniVersion: undefined }), 'CNI_VERSION'],
    [list([bridge], { cniVersions: ['1.0.0', '1.2.0'] }), 'CNI_VERSION'],
    [list([bridge], { cniVersions: '1.0.0', cniVersion: 5 }), 'CNI_VERSION'],
  ])('is not put into %s', (text, code) => {
    expect(() => chain(text, entry)).toThrowError(expect.objectContaining({ code }))
    expect(isChained(text, entry)).toBe(false)
  })

  it('is put into a list of several versions, all of which the plugin serves', () => {
    const text = list([bridge], { cniVersions: ['0.4.0', '1.1.0'] })
    expect(pluginsOf(chain(text, entry))).toEqual([bridge, mine])
  })

  /** JSON text with white space wherever it may be. */
  const space = fc.constantFrom('', ' ', '\n', '\t', '\r\n  ', '\n    ')
  const value = fc.jsonValue({ maxDepth: 3, stringUnit: 'binary' })
  const member = fc.tuple(fc.string({ unit: 'binary' }), value)
  const sprawl = (text: string, spaces: readonly string[]): string => {
    let used = 0
    let out = ''
    let inString = false
    for (let at = 0; at < text.length; at++) {
      const character = text[at]!
      if (character === '"') inString = !inString
      if (inString && character === '\\') {
        out += text.slice(at, at + 2)
        at++
        continue
      }
      const gap = !inString && '{}[]:,'.includes(character) && spaces.length > 0
      out += gap ? character + spaces[used++ % spaces.length]! : character
    }
    return out
  }

  it('comes and goes without a trace, whatever the list looks like', () => {
    fc.assert(
      fc.property(
        fc.array(member, { maxLength: 4 }),
        fc.array(fc.array(member, { maxLength: 3 }), { minLength: 1, maxLength: 4 }),
        fc.array(member, { maxLength: 3 }),
        fc.array(space, { maxLength: 7 }),
        (before, plugins, after, spaces) => {
          const object = (members: readonly (readonly [string, unknown])[]): string =>
            `{${members.map(([key, of]) => `${JSON.stringify(key)}:${JSON.stringify(of)}`).join(',')}}`
          const entries = plugins.map((members) => object([...members, ['type', 'x']])).join(',')
          const members = (list: readonly (readonly [string, unknown])[]): string => object(list).slice(1, -1)
          const parts = [members(before), `"cniVersion":"1.0.0","plugins":[${entries}]`, members(after)]
          const text = sprawl(`{${parts.filter((part) => part !== '').join(',')}}`, spaces)
          // Members of the same name as ours are another test's.
          fc.pre(Array.isArray(pluginsOf(text)) && !hasOther(text))
          const chained = chain(text, entry)
          expect(pluginsOf(chained)).toEqual([...(pluginsOf(text) as unknown[]), mine])
          expect(chain(chained, entry)).toBe(chained)
          expect(unchain(chained)).toBe(text)
          expect(unchain(text)).toBe(text)
        },
      ),
      { numRuns: 2_000 },
    )
  })
  const hasOther = (text: string): boolean => {
    const { cniVersion, cniVersions } = JSON.parse(text) as Record<string, unknown>
    return cniVersion !== '1.0.0' || cniVersions !== undefined
  }
})

describe('a list made of a configuration of the old form', () => {
  const conf = '{\n  "cniVersion": "0.3.1", "name": "old",\n  "type": "bridge", "mtu": 1.50e3\n}\n'

  it('has it as its one plugin, as it was written', () => {
    const made = listOf(conf)
    expect(JSON.parse(made)).toEqual({ cniVersion: '0.3.1', name: 'old', plugins: [JSON.parse(conf)] })
    expect(made).toContain('"mtu": 1.50e3')
    expect(pluginsOf(chain(made, entry))).toEqual([JSON.parse(conf), mine])
    expect(isOnlyListOf(chain(made, entry), conf)).toBe(true)
  })

  it('keeps what others chained when the configuration changes', () => {
    const former = chain(listOf(conf), entry)
    const shared = JSON.stringify({
      ...(JSON.parse(former) as object),
      plugins: [...(pluginsOf(former) as object[]), { type: 'tuning' }],
    })
    expect(listOf(conf, shared)).toBe(shared)
    expect(isOnlyListOf(shared, conf)).toBe(false)
    const changed = conf.replace('1.50e3', '9000')
    expect(pluginsOf(listOf(changed, shared))).toEqual([JSON.parse(changed), mine, { type: 'tuning' }])
    // Another network is another list.
    const renamed = conf.replace('old', 'new')
    expect(listOf(renamed, shared)).toBe(listOf(renamed))
    expect(listOf(conf, 'garbage')).toBe(listOf(conf))
  })

  it.each(['', '[]', '{"name":"x"}', '{"type":"x"}'])('is not made of %s', (text) => {
    expect(() => listOf(text)).toThrowError(expect.objectContaining({ code: 'CNI_CONFIG' }))
  })

  it('is of no version where the configuration has none, and is then not chained', () => {
    expect(() => chain(listOf('{"name":"x","type":"y"}'), entry)).toThrowError(
      expect.objectContaining({ code: 'CNI_VERSION' }),
    )
  })
})
