import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseObject, parseText } from './load.ts'
import { describeProblem } from './problem.ts'

const told = (text: string) =>
  parseText(text, 'f.yaml').problems.map((one) => `${one.severity} ${describeProblem(one)}`)

describe('telling what is wrong with a document', () => {
  it('names file, line, field and the fix of a wrong type', () => {
    expect(
      told(
        [
          'apiVersion: networking.istio.io/v1',
          'kind: VirtualService',
          'metadata: {name: v, namespace: shop}',
          'spec:',
          '  hosts: [a]',
          '  http:',
          '  - route:',
          '    - destination: {host: a}',
          '      weight: "80"',
        ].join('\n'),
      ),
    ).toEqual([
      'error f.yaml:9: VirtualService shop/v: spec.http[0].route[0].weight: Must be a number, not the string "80". [CONFIG_WRONG_TYPE] Write weight: 80 without quotes.',
    ])
  })

  it('names the nearest field for a misspelt one', () => {
    expect(
      told(
        'apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d}\nspec:\n  mtsl: {mode: STRICT}\n',
      ),
    ).toEqual([
      'error f.yaml:5: PeerAuthentication default/d: spec.mtsl: spec has no field "mtsl". [CONFIG_UNKNOWN_FIELD] Did you mean mtls?',
    ])
  })

  it('names the right field for a mistake people make', () => {
    expect(
      told('apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d}\nspec:\n  mode: STRICT\n'),
    ).toEqual([
      'error f.yaml:5: PeerAuthentication default/d: spec.mode: spec has no field "mode". [CONFIG_UNKNOWN_FIELD] Write it inside mtls, as in mtls: {mode: STRICT}.',
    ])
  })

  it('names the nearest value for a misspelt one', () => {
    expect(
      told(
        'apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d}\nspec:\n  mtls: {mode: STRIKT}\n',
      ),
    ).toEqual([
      'error f.yaml:5: PeerAuthentication default/d: spec.mtls.mode: Must be one of UNSET, DISABLE, PERMISSIVE, STRICT, not the string "STRIKT". [CONFIG_INVALID_VALUE] Did you mean STRICT?',
    ])
  })

  it('says that spec is missing, also when it is written without a value', () => {
    const text = 'apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\n'
    const wanted =
      'DestinationRule default/d: spec: The field is missing; it must be a map. [CONFIG_REQUIRED] Add `spec:`; check that the fields below it are indented.'
    expect(told(text)).toEqual([`error f.yaml:1: ${wanted}`])
    expect(told(`${text}spec:\n`)).toEqual([`error f.yaml:4: ${wanted}`])
  })

  it('names the apiVersion a kind is served under', () => {
    expect(
      told('apiVersion: networking.istio.io/v1alpha3\nkind: Telemetry\nmetadata: {name: t}\nspec: {}\n').slice(0, 1),
    ).toEqual([
      'error f.yaml:1: Telemetry default/t: apiVersion: There is no Telemetry in networking.istio.io. [CONFIG_WRONG_API_VERSION] Write apiVersion: telemetry.istio.io/v1.',
    ])
    expect(
      told(
        'apiVersion: networking.istio.io/v2\nkind: VirtualService\nmetadata: {name: t}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n',
      ),
    ).toEqual([
      'error f.yaml:1: VirtualService default/t: apiVersion: VirtualService is not served as networking.istio.io/v2. [CONFIG_WRONG_API_VERSION] Write apiVersion: networking.istio.io/v1.',
    ])
  })

  it('names the nearest kind for an unknown one', () => {
    expect(told('apiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: t}\n')).toEqual([
      'error f.yaml:2: VirtualServices default/t: kind: There is no kind VirtualServices in networking.istio.io/v1. [CONFIG_UNKNOWN_KIND] Did you mean kind: VirtualService with apiVersion: networking.istio.io/v1?',
    ])
    expect(told('apiVersion: networking.istio.oi/v1\nkind: VirtualServic\nmetadata: {name: t}\n')[0]).toContain(
      'CONFIG_UNKNOWN_KIND',
    )
  })

  it('leaves kinds of other projects alone, by name', () => {
    const parsed = parseText('apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: t}\n', 'f.yaml')
    expect(parsed.problems).toMatchObject([
      { severity: 'info', message: 'CronJob (batch/v1) is none of the kinds a mesh reads.' },
    ])
    expect(parsed.rejected).toEqual([])
  })

  it('tells all mistakes of a document, also behind a wrong apiVersion', () => {
    const lines = told(
      'apiVersion: networking.istio.io/v1alpha3\nkind: Telemetry\nmetadata: {name: t}\nspec:\n  accessLogging:\n  - file: {path: /dev/stdout}\n',
    )
    expect(lines).toHaveLength(2)
    expect(lines[1]).toMatch(/^error f.yaml:6: .*spec\.accessLogging\[0\] has no field "file"/)
  })

  it('refuses a label that is no string', () => {
    expect(told('apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  labels:\n    version: 1\n')).toEqual([
      'error f.yaml:6: Namespace n: metadata.labels.version: Must be a string, not 1. [CONFIG_WRONG_TYPE] Write version: "1" with quotes.',
    ])
  })

  it('warns of unknown fields in Kubernetes kinds and still takes the resource', () => {
    const parsed = parseText(
      'apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  selectr: {app: a}\n  ports: [{port: 80}]\n',
      'f.yaml',
    )
    expect(parsed.resources).toHaveLength(1)
    expect(parsed.problems).toMatchObject([
      { severity: 'warning', code: 'CONFIG_UNKNOWN_FIELD', line: 5, hint: 'Did you mean selector?' },
    ])
  })

  it('says that a document is no Kubernetes object', () => {
    expect(told('- a\n- b\n')).toEqual([
      'error f.yaml:1: This document is no Kubernetes object. [CONFIG_YAML_INVALID] An object has apiVersion, kind and metadata.',
    ])
    expect(told('kind: Service\n')[0]).toContain('The document has no apiVersion.')
    expect(told('apiVersion: v1\nkind: Service\nspec: {}\n')[0]).toContain('The document has no metadata with a name.')
  })

  it('reads the items of a List with the lines of the file', () => {
    const text =
      'apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: B}\n'
    const parsed = parseText(text, 'f.yaml')
    expect(parsed.resources.map((one) => one.metadata.name)).toEqual(['a'])
    expect(parsed.problems).toMatchObject([{ line: 9, field: 'metadata.name' }])
  })

  it('reports features to come by name, with their line', () => {
    expect(
      told(
        'apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [a]\n  http:\n  - fault: {delay: {fixedDelay: 1s}}\n    route: [{destination: {host: a}}]\n',
      ),
    ).toEqual([
      'warning f.yaml:7: VirtualService default/v: spec.http[0].fault: fault injection: Ambit does not have this yet. [CONFIG_NOT_YET] Requests that meet this rule are answered 500.',
    ])
  })

  it('reads objects of the Kubernetes API without a place', () => {
    const parsed = parseObject({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'a', generation: 3, creationTimestamp: '2026-01-01T00:00:00Z', labels: null },
    })
    expect(parsed.resources[0]?.metadata).toMatchObject({
      name: 'a',
      generation: 3,
      createdAt: 1_767_225_600_000,
      labels: {},
    })
    const bad = parseObject({
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name: 'a' },
      spec: 1,
    })
    expect(bad.problems.map(describeProblem)).toEqual([
      'PeerAuthentication default/a: spec: Must be a map, not 1. [CONFIG_WRONG_TYPE]',
    ])
    expect(bad.rejected).toMatchObject([{ key: 'security.istio.io/PeerAuthentication/default/a', security: true }])
  })

  it('never throws: each document becomes a resource, a rejection or a remark', () => {
    const kind = fc.constantFrom(
      'VirtualService',
      'DestinationRule',
      'AuthorizationPolicy',
      'PeerAuthentication',
      'Gateway',
      'HTTPRoute',
      'Service',
      'Pod',
      'Deployment',
      'ConfigMap',
      'EndpointSlice',
      'List',
      'constructor',
    )
    const group = fc.constantFrom(
      'v1',
      'apps/v1',
      'networking.istio.io/v1',
      'security.istio.io/v1',
      'gateway.networking.k8s.io/v1',
      'discovery.k8s.io/v1',
    )
    const key = fc.constantFrom(
      'spec',
      'hosts',
      'http',
      'route',
      'destination',
      'host',
      'rules',
      'from',
      'source',
      'principals',
      'selector',
      'matchLabels',
      'ports',
      'mtls',
      'mode',
      'items',
      'data',
      'constructor',
      '__proto__',
      'toString',
    )
    const tree = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom(null, true, 0, 1.5, -1, '', '*', '10.0.0.1'),
        fc.string({ maxLength: 5 }),
        fc.array(tie('node'), { maxLength: 3 }),
        fc.dictionary(key, tie('node'), { maxKeys: 4 }),
      ),
    })).node
    fc.assert(
      fc.property(group, kind, tree, tree, (apiVersion, name, spec, metadata) => {
        const value = { apiVersion, kind: name, metadata, spec, items: [spec], data: spec }
        const parsed = parseObject(value)
        expect(parsed.resources.length + parsed.rejected.length + parsed.problems.length).toBeGreaterThan(0)
        for (const problem of parsed.problems) {
          expect(typeof problem.message).toBe('string')
          expect(typeof problem.hint).toBe('string')
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('never throws on arbitrary text', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseText(`kind: Pod\n${text}`, 'f.yaml')))
  })
})
