// Every YAML block of the article is held to one of: works, refused with the fix, not yet with the feature named. The
// traffic behind "works" is shown end to end with the shop (test/mesh).
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { hasErrors } from '../agent/config/problem.ts'
import { blocks, fixedTextOf, judge, renderTable, TABLE_FILE, textOf, type Block } from './world/article.ts'

const block = (file: string): Block => {
  const found = blocks.find((one) => one.file.startsWith(file))
  if (!found) throw new Error(`there is no block ${file}`)
  return found
}
const MY_SERVICE = 'my-service.default.svc.cluster.local'

describe("the article's blocks", () => {
  it('are all in the table, in the order of the article', () => {
    expect(readdirSync(new URL('world/article', import.meta.url)).sort()).toEqual(blocks.map((one) => one.file))
    expect(blocks).toHaveLength(13)
  })

  it('are verbatim copies: whoever corrects one has to say so here', () => {
    const hash = createHash('sha256')
    for (const one of blocks) hash.update(textOf(one))
    expect(hash.digest('hex')).toBe('e032017852020256df62a3606cae61b44918e7ce302c5d816669301e087aaf1f')
  })

  it.each(blocks.map((one) => [one.file, one] as const))('%s gets the verdict of the table', (_file, one) => {
    const { state, problems } = judge(one)
    const declared = [...textOf(one).matchAll(/^kind: (\w+)/gm)].length
    const taken = state.resources.filter((resource) => resource.origin.file === one.file).length
    if (one.verdict === 'refused') {
      expect(hasErrors(problems)).toBe(true)
      expect(taken).toBe(0)
      expect(problems.filter((problem) => problem.severity === 'error' && problem.hint === '')).toEqual([])
      const fixed = judge(one, fixedTextOf(one))
      expect(fixed.problems.filter((problem) => problem.severity === 'error')).toEqual([])
      return
    }
    expect(problems.filter((problem) => problem.severity === 'error')).toEqual([])
    expect(taken).toBe(declared)
    expect(problems.some((problem) => problem.code === 'CONFIG_NOT_YET')).toBe(one.verdict === 'not yet')
  })

  it('stand in the docs with their verdicts', () => {
    expect(readFileSync(TABLE_FILE, 'utf8'), 'run agent/bin/node test/world/article.ts').toBe(renderTable())
  })
})

describe('what works', () => {
  it('enrols the pods behind the frontend’s service, asked-for sidecar or not', () => {
    const { translation } = judge(block('01'))
    expect(translation.services.find((one) => one.name === 'frontend-service')?.ports).toMatchObject([
      { port: 80, targetPort: 8080 },
    ])
    const frontend = translation.workloads.find((one) => one.name === 'frontend')
    expect(frontend).toMatchObject({
      tunnelProtocol: 'HBONE',
      services: { 'default/frontend-service.default.svc.cluster.local': { 80: 8080 } },
    })
  })

  it('splits 80 to 20 between the subsets', () => {
    expect(judge(block('05')).translation.routes).toMatchObject([
      {
        hostname: MY_SERVICE,
        rules: [
          {
            action: {
              destinations: [
                { subset: 'v1', weight: 80 },
                { subset: 'v2', weight: 20 },
              ],
            },
          },
        ],
      },
    ])
  })

  it('limits the pool and ejects, with LEAST_CONN as LEAST_REQUEST', () => {
    const policy = (file: string, host: string) =>
      judge(block(file)).translation.upstreams.find((one) => one.hostname === `${host}.default.svc.cluster.local`)
        ?.policy
    expect(policy('04', 'my-service')).toMatchObject({
      connectionPool: { http1MaxPendingRequests: 100, maxRequestsPerConnection: 10 },
      outlierDetection: {
        consecutive5xxErrors: 7,
        intervalMs: 10_000,
        baseEjectionTimeMs: 30_000,
        maxEjectionPercent: 10,
      },
    })
    expect(policy('06', 'my-service')).toMatchObject({
      loadBalancer: 'LEAST_REQUEST',
      outlierDetection: { consecutive5xxErrors: 7, maxEjectionPercent: 10 },
    })
    expect(policy('10', 'prometheus')).toEqual({ connectionPool: { http1MaxPendingRequests: 1000 } })
    expect(policy('13', 'my-service')).toMatchObject({
      loadBalancer: 'LEAST_REQUEST',
      connectionPool: { http1MaxPendingRequests: 50, maxRequestsPerConnection: 5 },
      outlierDetection: { consecutive5xxErrors: 3, intervalMs: 5000, baseEjectionTimeMs: 15_000 },
    })
  })

  it('refuses plaintext to every pod of the namespace', () => {
    const { workloads } = judge(block('07')).translation
    expect(workloads.length).toBeGreaterThan(0)
    for (const one of workloads)
      expect(one.authorizationPolicies).toEqual(['istio-system/istio_converted_static_strict'])
  })

  it('lets the frontend’s service account GET and POST on /api/, and nobody else', () => {
    const { policies, workloads } = judge(block('08')).translation
    expect(policies).toMatchObject([
      {
        action: 'ALLOW',
        scope: 'workload',
        rules: [
          {
            clauses: [
              {
                matches: [
                  { principals: [{ type: 'exact', value: 'cluster.local/ns/default/sa/frontend-service-account' }] },
                ],
              },
              {
                matches: [
                  {
                    methods: [
                      { type: 'exact', value: 'GET' },
                      { type: 'exact', value: 'POST' },
                    ],
                    paths: [{ type: 'prefix', value: '/api/' }],
                  },
                ],
              },
            ],
          },
        ],
      },
    ])
    expect(workloads.filter((one) => one.authorizationPolicies.length > 0).map((one) => one.name)).toEqual(['frontend'])
  })
})

describe('what is refused', () => {
  it('names the right fields of a ServiceProfile', () => {
    expect(judge(block('03')).problems.map((one) => [one.line, one.field, one.hint])).toEqual([
      [
        11,
        'spec.routes[0].condition.path',
        'The field is called pathRegex and is an anchored regular expression, as in pathRegex: /health.',
      ],
      [
        14,
        'spec.routes[0].responseClasses[0].condition.statusCode',
        'The field is called status and is a range, as in status: {min: 200, max: 200}.',
      ],
    ])
  })

  it('names the right apiVersion of Telemetry, and what an access log is written to', () => {
    expect(judge(block('12')).problems.map((one) => [one.line, one.code, one.hint.slice(0, 60)])).toEqual([
      [2, 'CONFIG_WRONG_API_VERSION', 'Write apiVersion: telemetry.istio.io/v1.'],
      [8, 'CONFIG_UNKNOWN_FIELD', 'An access log names a provider, as in providers: [{name: env'],
    ])
  })
})

describe('what is to come', () => {
  it('is closed until then where it protects something', () => {
    const { policies } = judge(block('09')).translation
    expect(policies).toMatchObject([
      {
        action: 'ALLOW',
        rules: [
          {
            clauses: [
              { matches: [{ requestPrincipals: [{ type: 'presence' }] }] },
              { matches: [{ claims: [{ key: 'iss' }] }] },
            ],
          },
        ],
      },
    ])
  })

  it('does not route in the mesh what is for an ingress gateway', () => {
    expect(judge(block('02')).translation.routes).toEqual([])
  })
})
