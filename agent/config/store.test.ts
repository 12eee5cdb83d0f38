import { describe, expect, it } from 'vitest'
import { loadText, type Loaded } from './folder.ts'
import { describeProblem } from './problem.ts'
import { ResourceStore } from './store.ts'
import { translate } from './translate.ts'

const RULE = (host: string) =>
  `apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: rule}\nspec: {host: ${host}}\n`
const POLICY = (spec: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop}\nspec:\n  selector: {matchLabels: {app: a}}\n${spec}`

/** Folders one after the other, each a map of file names to texts. */
function look(...roots: Record<string, string>[]): Loaded {
  const files = roots.flatMap((root, index) =>
    Object.entries(root).flatMap(([file, text]) => loadText(text, file).files.map((one) => ({ ...one, root: index }))),
  )
  return { files, folders: [], unreadable: [], problems: [] }
}

const hosts = (state: { resources: readonly { body: unknown }[] }) =>
  state.resources.map((one) => (one.body as { spec: { host: string } }).spec.host)

describe('the resources in force', () => {
  it('keeps the last good version of a resource that is rejected, and says so', () => {
    const store = new ResourceStore()
    store.update(look({ 'a.yaml': RULE('one') }))
    const state = store.update(look({ 'a.yaml': RULE('[1]') }))
    expect(hosts(state)).toEqual(['one'])
    expect(state.problems.map((one) => one.code).sort()).toEqual(['CONFIG_LAST_GOOD_KEPT', 'CONFIG_WRONG_TYPE'])
    expect(state.problems.map(describeProblem)).toContain(
      'a.yaml:1: DestinationRule default/rule: The last good version stays in force. [CONFIG_LAST_GOOD_KEPT]',
    )
    expect(hosts(store.update(look({ 'a.yaml': RULE('two') })))).toEqual(['two'])
  })

  it('takes the others of a file in which one is broken', () => {
    const state = new ResourceStore().update(
      look({ 'a.yaml': `${RULE('one')}---\n{[\n---\n${RULE('two').replace('name: rule', 'name: other')}` }),
    )
    expect(hosts(state)).toEqual(['one', 'two'])
  })

  it('forgets what was removed', () => {
    const store = new ResourceStore()
    store.update(look({ 'a.yaml': RULE('one') }))
    expect(store.update(look({ 'a.yaml': '# empty\n' })).resources).toEqual([])
  })

  it('keeps all that a file held when it cannot be told what broke in it', () => {
    const store = new ResourceStore()
    store.update(look({ 'a.yaml': RULE('one') }))
    const state = store.update(look({ 'a.yaml': 'x: [\n' }))
    expect(hosts(state)).toEqual(['one'])
    expect(state.problems.map((one) => one.message)).toContain(
      '1 resource of this file cannot be found in it any more, and stay in force as they were.',
    )
  })

  it('keeps everything under a folder that cannot be read any more', () => {
    const store = new ResourceStore()
    store.update(look({ '/etc/mesh/a.yaml': RULE('one') }))
    expect(hosts(store.update({ files: [], folders: [], unreadable: ['/etc/mesh'], problems: [] }))).toEqual(['one'])
  })

  it('counts the first of two declarations in one folder, and names the second', () => {
    const state = new ResourceStore().update(look({ 'a.yaml': RULE('one'), 'b.yaml': RULE('two') }))
    expect(hosts(state)).toEqual(['one'])
    expect(state.problems.map(describeProblem)).toEqual([
      'b.yaml:3: DestinationRule default/rule: metadata.name: DestinationRule default/rule is already declared at a.yaml:1; that one counts. [CONFIG_DUPLICATE] Rename or remove one of them.',
    ])
  })

  it('lets a later folder overlay an earlier one', () => {
    const state = new ResourceStore().update(look({ 'a.yaml': RULE('one') }, { 'state.yaml': RULE('two') }))
    expect(hosts(state)).toEqual(['two'])
    expect(state.problems).toEqual([])
  })

  it('denies the targets of a rejected security resource of which no good version is held', () => {
    const state = new ResourceStore().update(look({ 'p.yaml': POLICY('  rules:\n  - form: []\n') }))
    expect(state.problems.map(describeProblem)).toEqual([
      'p.yaml:1: AuthorizationPolicy shop/guard: No good version of AuthorizationPolicy shop/guard is held: traffic to everything it selects is denied. [CONFIG_DENIES_TARGETS] Correct the resource or remove it.',
      'p.yaml:7: AuthorizationPolicy shop/guard: spec.rules[0].form: spec.rules[0] has no field "form". [CONFIG_UNKNOWN_FIELD] Did you mean from?',
    ])
    expect(translate(state).policies).toMatchObject([
      {
        namespace: 'shop',
        name: 'ambit_rejected_AuthorizationPolicy_guard',
        action: 'DENY',
        scope: 'workload',
        selector: { app: 'a' },
        rules: [{ clauses: [] }],
      },
    ])
  })

  it('denies nothing while a good version of the security resource is held', () => {
    const store = new ResourceStore()
    store.update(look({ 'p.yaml': POLICY('  action: DENY\n') }))
    const state = store.update(look({ 'p.yaml': POLICY('  action: DENI\n') }))
    expect(state.denials).toEqual([])
    expect(translate(state).policies).toMatchObject([{ name: 'guard', action: 'DENY', rules: [] }])
  })

  it('denies the whole namespace when the selector of a rejected policy cannot be read', () => {
    for (const spec of [
      '  selector: {matchLabels: [a]}\n',
      '  selector: {matchLabel: {a: b}}\n',
      '  selector: {matchLabels: {a: 1}}\n',
      ' broken: [\n',
    ]) {
      const text = `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop}\nspec:\n${spec}`
      const { policies } = translate(new ResourceStore().update(look({ 'p.yaml': text })))
      expect(policies, spec).toMatchObject([{ scope: 'namespace', namespace: 'shop', action: 'DENY' }])
    }
  })

  it('denies the mesh for a rejected policy of the root namespace, and the targets of one with targetRefs', () => {
    const text = (namespace: string, spec: string) =>
      `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: g, namespace: ${namespace}}\nspec: {${spec}, action: NO}\n`
    const policies = (yaml: string) => translate(new ResourceStore().update(look({ 'p.yaml': yaml }))).policies
    expect(policies(text('istio-system', 'rules: []'))).toMatchObject([{ scope: 'global' }])
    expect(policies(text('shop', 'targetRefs: [{group: "", kind: Service, name: api}]'))).toMatchObject([
      { scope: 'target', targets: [{ kind: 'Service', namespace: 'shop', name: 'api' }] },
    ])
  })

  it('denies for each of several rejected policies without a readable name', () => {
    const text = (label: string) =>
      `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: shop}\nspec: {selector: {matchLabels: {app: ${label}}}}\n`
    const { policies } = translate(new ResourceStore().update(look({ 'p.yaml': `${text('a')}---\n${text('b')}` })))
    expect(policies.map((one) => one.selector)).toEqual([{ app: 'a' }, { app: 'b' }])
    expect(new Set(policies.map((one) => one.name)).size).toBe(2)
  })

  it('fails closed for a policy written under a wrong apiVersion', () => {
    const text = POLICY('  rules: []\n').replace('security.istio.io/v1', 'networking.istio.io/v1')
    expect(translate(new ResourceStore().update(look({ 'p.yaml': text }))).policies).toMatchObject([
      { action: 'DENY', selector: { app: 'a' } },
    ])
  })
})
