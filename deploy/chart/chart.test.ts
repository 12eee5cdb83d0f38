// What the chart makes, for several values: helm's own output, parsed. Where no helm was built yet only its files are looked at.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { crds } from './crds.ts'
import { findHelm, manifest, render } from './manifest.ts'

const root = join(import.meta.dirname, '../..')
const text = (path: string): string => readFileSync(join(root, path), 'utf8')

interface Container {
  readonly name: string
  readonly image: string
  readonly args?: readonly string[]
  readonly ports?: unknown
  readonly resources: { readonly limits?: { readonly memory?: string } }
  readonly securityContext: {
    readonly readOnlyRootFilesystem?: boolean
    readonly allowPrivilegeEscalation?: boolean
    readonly appArmorProfile?: unknown
    readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] }
  }
}
interface Thing {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
  readonly rules?: readonly { readonly verbs: readonly string[]; readonly resources: readonly string[] }[]
  readonly spec: {
    readonly updateStrategy: unknown
    readonly replicas: number
    readonly template: { readonly spec: Record<string, unknown> & { readonly containers: readonly Container[] } }
  }
}

describe('the chart', () => {
  it('has the version of the package', () => {
    const { version } = JSON.parse(text('package.json')) as { version: string }
    expect(parse(text('deploy/chart/Chart.yaml'))).toMatchObject({ version, appVersion: version })
  })

  it('has a definition for every kind that people write', () => {
    expect(crds().map((one) => one.file)).toContain('virtualservices.networking.istio.io.yaml')
    for (const { crd } of crds()) expect(JSON.stringify(crd)).not.toMatch(/"\$ref"|"anyOf"/)
  })

  it('describes every value in its schema, and has none that is not there', () => {
    const values = parse(text('deploy/chart/values.yaml')) as Record<string, unknown>
    const schema = JSON.parse(text('deploy/chart/values.schema.json')) as Schema
    expect(missing(values, schema, '')).toEqual([])
  })
})

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>
  readonly description?: string
}

function missing(value: unknown, schema: Schema, path: string): string[] {
  if (!schema.properties || typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => {
    const of = schema.properties?.[key]
    return of?.description ? missing(inner, of, `${path}.${key}`) : [`${path}.${key}`]
  })
}

const helm = findHelm()
const made = (...args: readonly string[]): Thing[] =>
  parseAllDocuments(render(helm!, args)).flatMap((one) => (one.toJS() as Thing | null) ?? [])
const find = (things: readonly Thing[], kind: string, name: string): Thing => {
  const found = things.find((one) => one.kind === kind && one.metadata.name === name)
  expect(found, `${kind} ${name}`).toBeDefined()
  return found!
}

describe.skipIf(helm === undefined)('what helm makes of it (needs the helm of the Kubernetes sandbox)', () => {
  it('replaces agents beside each other, in pods without ports of the node', () => {
    const { spec } = find(made(), 'DaemonSet', 'ambit-agent')
    expect(spec.updateStrategy).toEqual({ type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } })
    const pod = spec.template.spec
    expect(pod).toMatchObject({ hostPID: true, priorityClassName: 'system-node-critical' })
    expect(pod['hostNetwork']).toBeUndefined()
    for (const one of pod.containers) expect(JSON.stringify(one.ports ?? [])).not.toContain('hostPort')
    expect(pod['terminationGracePeriodSeconds']).toBeGreaterThanOrEqual(45)
  })

  it('gives every container a read-only root, a memory limit, and no capability it does not name', () => {
    for (const [kind, name] of [
      ['DaemonSet', 'ambit-agent'],
      ['Deployment', 'ambit-control'],
    ] as const)
      for (const { name: container, securityContext, resources } of find(made(), kind, name).spec.template.spec
        .containers) {
        expect(securityContext, container).toMatchObject({
          readOnlyRootFilesystem: true,
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
        })
        expect(securityContext.capabilities?.add ?? [], container).not.toContain('SYS_MODULE')
        expect(resources.limits?.memory, container).toMatch(/^\d+[MG]i$/)
      }
  })

  it('lets agents do what they are there for on nodes with AppArmor or SELinux', () => {
    const pod = find(made(), 'DaemonSet', 'ambit-agent').spec.template.spec
    expect(pod['securityContext']).toEqual({ seLinuxOptions: { type: 'spc_t', level: 's0' } })
    const [agent, holder] = pod.containers
    expect(agent?.securityContext.appArmorProfile).toEqual({ type: 'Unconfined' })
    expect(holder?.securityContext.appArmorProfile).toBeUndefined()
  })

  it('gives agents no rights, and control none to read other Secrets', () => {
    const things = made()
    const subjects = things.filter((one) => one.kind.endsWith('RoleBinding')).map((one) => JSON.stringify(one))
    for (const one of subjects) expect(one).not.toContain('ambit-agent')
    const rules = things.filter((one) => one.kind.endsWith('Role')).flatMap((one) => one.rules ?? [])
    const secrets = rules.filter((one) => one.resources.includes('secrets'))
    for (const one of secrets) if (!('resourceNames' in one)) expect(one.verbs).toEqual(['create'])
    for (const one of rules) expect(one.verbs).not.toContain('*')
  })

  it('keeps a replica of control over drains, unless there is only one', () => {
    expect(made().some((one) => one.kind === 'PodDisruptionBudget')).toBe(true)
    expect(made('--set', 'control.replicas=1').some((one) => one.kind === 'PodDisruptionBudget')).toBe(false)
  })

  it('has all host paths under the values', () => {
    const spec = find(made('--set', 'hostPaths.run=/somewhere/else'), 'DaemonSet', 'ambit-agent').spec.template.spec
    expect(JSON.stringify(spec)).not.toContain('"/run/ambit')
    expect(spec.containers[0]?.args).toContain('--socket=/somewhere/else/agent.sock')
  })

  it.each([
    ['cni.enabled=false', /cni-conf/],
    ['webhook.enabled=false', /ValidatingWebhookConfiguration|webhook=/],
    ['networkPolicies.enabled=false', /kind: NetworkPolicy/],
    ['metrics.annotations=false', /prometheus\.io\/scrape/],
  ])('leaves out what %s says', (set, what) => {
    expect(render(helm!)).toMatch(what)
    expect(render(helm!, ['--set', set])).not.toMatch(what)
  })

  it('refuses a value that does not exist, by name', () => {
    expect(() => render(helm!, ['--set', 'agent.drainSecond=5'])).toThrow('drainSecond')
  })

  it('is what deploy/ambit.yaml was made of', () => {
    expect(text('deploy/ambit.yaml'), 'run `npm run gen` and commit it').toBe(manifest(helm!))
  })
})
