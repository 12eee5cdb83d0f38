// Whatever is done to good resources, loading and translating them never throws, and a document that still says it is
// a security resource is either in force or denies: it is never dropped.
import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { loadText } from './folder.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const SHOP = new URL('../../deploy/examples/shop/', import.meta.url)
const EXTRA = `
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, labels: {app: my-service, version: v1}}, spec: {containers: [{name: c, ports: [{name: web, containerPort: 1}]}]}, status: {podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e, namespace: shop, labels: {kubernetes.io/service-name: my-service}}, addressType: IPv4, ports: [{name: http, port: 1}], endpoints: [{addresses: [10.0.0.1]}]}
- {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h, namespace: shop}, spec: {parentRefs: [{group: "", kind: Service, name: my-service}], rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {hostname: x}}], backendRefs: [{name: my-service, port: 80}]}]}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: "rootNamespace: shop"}}
- {apiVersion: v1, kind: Node, metadata: {name: n, labels: {topology.kubernetes.io/zone: z}}}
`
const documents: readonly unknown[] = [
  ...readdirSync(SHOP)
    .filter((name) => name !== 'images.yaml' && name.endsWith('.yaml'))
    .flatMap((name) => readFileSync(new URL(name, SHOP), 'utf8').split(/^---$/m))
    .map((text) => parse(text) as unknown),
  ...(parse(EXTRA) as unknown[]),
]

type Change = { readonly steps: readonly number[]; readonly value: unknown; readonly remove: boolean }

const change: fc.Arbitrary<Change> = fc.record({
  steps: fc.array(fc.nat(9), { minLength: 1, maxLength: 8 }),
  value: fc.oneof(
    fc.constantFrom<unknown>(
      null,
      0,
      -1,
      1.5,
      true,
      '',
      '*',
      'my-service',
      'mesh',
      [],
      {},
      [null],
      { a: 1 },
      ['*'],
      '10.0.0.1',
      'STRICT',
    ),
    fc.string({ maxLength: 6 }),
  ),
  remove: fc.boolean(),
})

/** Walks down by indexes into whatever is there and replaces or removes what it ends at. */
function changed(document: unknown, { steps, value, remove }: Change): unknown {
  const copy = structuredClone(document)
  let node = copy as Record<string, unknown>
  for (const [index, step] of steps.entries()) {
    const keys = Object.keys(node)
    const key = keys[step % Math.max(1, keys.length)]
    if (key === undefined) break
    const next = node[key]
    if (index === steps.length - 1 || typeof next !== 'object' || next === null) {
      if (remove) delete node[key]
      else node[key] = value
      break
    }
    node = next as Record<string, unknown>
  }
  return copy
}

describe('anything at all', () => {
  it('is loaded and translated without an exception, and security resources are never dropped', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(documents.length - 1), change), { minLength: 1, maxLength: 4 }),
        (changes) => {
          const all = [...documents]
          for (const [index, one] of changes) all[index] = changed(all[index], one)
          const state = resourcesOf(loadText(all.map((one) => stringify(one)).join('---\n'), 'f.yaml'))
          const { policies, problems, services } = translate(state)
          expect([...state.problems, ...problems].every((one) => one.message !== '' && one.line > 0)).toBe(true)
          for (const service of services) expect(service.hostname).toContain(service.name)
          const named = all.filter((one) => (one as { kind?: unknown }).kind === 'AuthorizationPolicy')
          expect(policies.filter((policy) => policy.source.kind.endsWith('AuthorizationPolicy'))).toHaveLength(
            named.length,
          )
        },
      ),
      { numRuns: 150 },
    )
  })
})
