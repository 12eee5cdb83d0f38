// Explanations of whole folders: what is said, which resource and line is named, and that it is what the mesh would do.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Explanation } from '../explain/answer.ts'
import { main } from '../main.ts'
import { runningConfig } from '../running.ts'
import { testTerminal } from '../samples.ts'

const shop = new URL('../../../deploy/examples/shop', import.meta.url).pathname

const BASE = `apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: app}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: app, labels: {app: api, version: v1}}
spec: {serviceAccountName: api, nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: api-2, namespace: app, labels: {app: api, version: v2}}
spec: {serviceAccountName: api, nodeName: n2, containers: [{name: c}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: app, labels: {app: client}}
spec: {serviceAccountName: client, nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.0.0.3}
`
const WAYPOINT = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: app}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: app, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: wp}}
`
const policy = (spec: string, metadata = 'name: p, namespace: app'): string =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {${metadata}}\nspec: ${spec}\n`

describe('ambit explain', () => {
  let folder: string
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-explain-'))))
  afterEach(() => rmSync(folder, { recursive: true }))

  /** Later texts overlay the base, each as a folder of its own. */
  async function ask(args: string[], ...more: string[]): Promise<Explanation> {
    const dirs = [BASE, ...more].flatMap((text, i) => {
      const dir = join(folder, String(i))
      mkdirSync(dir, { recursive: true })
      writeFileSync(join(dir, 'a.yaml'), text)
      return ['--config-dir', dir]
    })
    const terminal = testTerminal()
    const code = await main(['explain', ...args, ...dirs, '-o', 'json'], terminal)
    expect(terminal.errors).toBe('')
    expect(code).toBe(0)
    return JSON.parse(terminal.text) as Explanation
  }
  const resources = (explanation: Explanation): string[] =>
    [...explanation.steps, ...explanation.branches.flatMap((branch) => branch.steps)].flatMap((step) =>
      step.because.map((one) => `${one.resource}${one.part ? ` ${one.part}` : ''}`),
    )

  it('goes from agent to agent without a waypoint, to endpoints that are alike as one', async () => {
    const answer = await ask(['client', 'api'])
    expect(answer).toMatchObject({
      source: { name: 'app/client', identity: 'spiffe://cluster.local/ns/app/sa/client', enrolled: true },
      destination: { name: 'app/api', port: 80 },
      verdict: 'delivered',
    })
    expect(answer.branches).toHaveLength(1)
    expect(answer.branches[0]?.endpoints).toEqual(['app/api-1', 'app/api-2'])
  })

  it('names the policy and line that denies a connection', async () => {
    const deny = policy(
      '{action: DENY, selector: {matchLabels: {version: v2}}, rules: [{from: [{source: {principals: ["*/sa/client"]}}]}]}',
    )
    const answer = await ask(['client', 'api'], deny)
    expect(answer.verdict).toBe('depends')
    const denied = answer.branches.find((branch) => branch.result.outcome === 'denied')
    expect(denied).toMatchObject({ share: 0.5, endpoints: ['app/api-2'] })
    expect(denied?.steps[0]?.because[0]).toEqual({
      resource: 'AuthorizationPolicy app/p',
      place: `${join(folder, '1', 'a.yaml')}:1`,
      part: 'rule 0',
    })
  })

  it('shows that an L7 DENY denies whole connections where there is no waypoint', async () => {
    const answer = await ask(
      ['client', 'api', 'GET', '/'],
      policy('{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}'),
    )
    expect(answer.verdict).toBe('denied')
  })

  it('refuses strangers under STRICT by the PeerAuthentication, serves them without it', async () => {
    expect((await ask(['outside', 'api'])).verdict).toBe('delivered')
    const strict =
      'apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: d, namespace: app}\nspec: {mtls: {mode: STRICT}}\n'
    const answer = await ask(['outside', 'api'], strict)
    expect(answer.verdict).toBe('denied')
    expect(resources(answer)).toEqual(['PeerAuthentication app/d'])
    expect((await ask(['client', 'api'], strict)).verdict).toBe('delivered')
  })

  it('says that the kernel refuses plaintext under STRICT, by whichever PeerAuthentication holds there, before its agent is asked', async () => {
    const strict = (namespace: string): string =>
      `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: of-${namespace}, namespace: ${namespace}}\nspec: {mtls: {mode: STRICT}}\n`
    // Both say the same policy on the wire.
    const other = BASE.replaceAll('namespace: app', 'namespace: other').replace('name: app', 'name: other')
    const answer = await ask(['outside', 'app/api'], strict('aaa'), other, strict('other'), strict('app'))
    const denied = answer.branches[0]
    expect(denied?.result).toEqual({
      outcome: 'denied',
      client: 'connection refused',
      details: 'plaintext_refused',
    })
    expect(denied?.steps.map((step) => step.at.split(' ')[0])).toEqual(['kernel'])
    expect(resources(answer)).toEqual(['PeerAuthentication app/of-app'])
    const terminal = testTerminal()
    expect(await main(['explain', 'outsider', 'my-service-v1:8080', '--config-dir', shop], terminal)).toBe(0)
    expect(terminal.text).toMatch(
      /denied: plaintext is refused.*\n +PeerAuthentication shop\/default {2}\S+50-security\.yaml:2\n/,
    )
    expect(terminal.text).toContain('not asked; would say denied: takes traffic from its waypoint only')
  })

  it('refuses what is labelled for a waypoint that is missing', async () => {
    const terminal = testTerminal()
    writeFileSync(
      join(folder, 'a.yaml'),
      `${BASE.replace('dataplane-mode: ambient', 'dataplane-mode: ambient, istio.io/use-waypoint: wp')}`,
    )
    expect(await main(['explain', 'client', 'api', '--config-dir', folder, '-o', 'json'], terminal)).toBe(0)
    const answer = JSON.parse(terminal.text) as Explanation
    expect(answer.branches[0]?.result).toMatchObject({ outcome: 'refused', details: 'waypoint_missing' })
    // The missing Gateway is an error of the configuration, and said so.
    expect(terminal.errors).toContain('CONFIG_UNKNOWN_GATEWAY')
  })

  it('follows a request through the waypoint: policy, rule, weights, subsets, endpoints', async () => {
    const routes = `${WAYPOINT}---
${policy('{selector: {matchLabels: {app: api}}, rules: [{to: [{operation: {methods: [GET], paths: ["/api/*"]}}]}]}')}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: app}
spec:
  hosts: [api]
  http:
    - match: [{uri: {prefix: /api/old}}]
      redirect: {uri: /api/new}
    - match: [{headers: {x-canary: {exact: 'yes'}}}]
      route: [{destination: {host: api, subset: v2}}]
    - match: [{uri: {prefix: /api/}}]
      rewrite: {uri: /}
      route:
        - {destination: {host: api, subset: v1}, weight: 90}
        - {destination: {host: api, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: app}
spec:
  host: api
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
`
    const split = await ask(['client', 'api', 'GET', '/api/x'], routes)
    expect(split.branches.map((branch) => [branch.share, branch.to, branch.endpoints, branch.result.outcome])).toEqual([
      [0.9, 'app/api:80 subset v1', ['app/api-1'], 'delivered'],
      [0.1, 'app/api:80 subset v2', ['app/api-2'], 'delivered'],
    ])
    expect(resources(split).slice(0, 3)).toEqual([
      'Gateway app/wp',
      'AuthorizationPolicy app/p rule 0',
      'VirtualService app/api rule 2, match 0',
    ])
    expect(split.steps.some((step) => step.says.includes('path becomes /x'))).toBe(true)

    const canary = await ask(['client', 'api', 'GET', '/api/x', '-H', 'X-Canary: yes'], routes)
    expect(canary.branches.map((branch) => branch.endpoints)).toEqual([['app/api-2']])
    const redirect = await ask(['client', 'api', 'GET', '/api/a/../old/x?q=1'], routes)
    expect(redirect.branches[0]?.result).toMatchObject({
      outcome: 'answered',
      status: 301,
      client: '301, location http://api/api/new?q=1',
    })
    expect((await ask(['client', 'api', 'PUT', '/api/x'], routes)).branches[0]?.result).toMatchObject({
      outcome: 'denied',
      status: 403,
    })
    // Without a request only what is about connections counts, and the ALLOW policy asks about requests.
    expect((await ask(['client', 'api'], routes)).verdict).toBe('denied')
    // Past the waypoint: by the pod's own address its policies still hold, its routes do not.
    const pod = await ask(['client', '10.0.0.1:8080', 'GET', '/api/old'], routes)
    expect(pod.verdict).toBe('delivered')
    expect((await ask(['outside', '10.0.0.1:8080'], routes)).branches[0]?.result.details).toContain('waypoint_required')
  })

  it('says what answers when no rule matches, a subset is missing, or a feature is', async () => {
    const route = (http: string): string =>
      `${WAYPOINT}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: api, namespace: app}\nspec: {hosts: [api], http: ${http}}\n`
    const result = async (http: string) => (await ask(['client', 'api', 'GET', '/'], route(http))).branches[0]?.result
    expect(await result('[{match: [{uri: {exact: /x}}], route: [{destination: {host: api}}]}]')).toMatchObject({
      status: 404,
      details: 'route_not_found',
    })
    expect(await result('[{directResponse: {status: 418}}]')).toMatchObject({ status: 418, outcome: 'answered' })
    expect(
      await result(
        '[{fault: {abort: {httpStatus: 500, percentage: {value: 1}}}, route: [{destination: {host: api}}]}]',
      ),
    ).toMatchObject({ status: 500 })
  })

  it('passes strangers through, or refuses them by the mesh settings', async () => {
    expect((await ask(['client', '192.0.2.9:443'])).branches[0]?.result.outcome).toBe('delivered')
    const only =
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}\n'
    expect((await ask(['client', '192.0.2.9:443'], only)).branches[0]?.result.details).toBe('registry_only')
  })

  it('explains the example as it is written, and in words', async () => {
    const terminal = testTerminal()
    expect(await main(['explain', 'frontend', 'my-service', 'GET', '/api/items', '--config-dir', shop], terminal)).toBe(
      0,
    )
    expect(terminal.text).toMatch(/AuthorizationPolicy shop\/service-mesh-policy, rule 0 {2}\S+50-security\.yaml:\d+/)
    expect(terminal.text).toContain('  80 % shop/my-service:80 subset v1')
    expect(terminal.text).toContain('delivered: the app answers')
    expect(terminal.text).toContain('Deployment shop/my-service-v1 has one ready pod.')
  })

  it.each([
    [['nobody', 'api'], 'CLI_SOURCE_UNKNOWN', 'app/client'],
    [['client', 'nothing'], 'CLI_DESTINATION_UNKNOWN', 'app/api'],
    [['client', '10.9.9.9'], 'CLI_PORT_REQUIRED', 'PORT'],
    [['client', 'api', 'GET', '/', '-H', 'bad header'], 'CLI_HEADER_INVALID', 'name: value'],
  ])('says what is wrong with %j', async (args, code, hint) => {
    writeFileSync(join(folder, 'a.yaml'), BASE)
    const terminal = testTerminal()
    expect(await main(['explain', ...args, '--config-dir', folder], terminal)).toBe(2)
    expect(terminal.errors).toContain(code)
    expect(terminal.errors).toContain(hint)
  })

  it('finds the configuration of the running sandbox', () => {
    expect(() => runningConfig(undefined, folder)).toThrow(expect.objectContaining({ code: 'CLI_SANDBOX_MISSING' }))
    for (const name of ['one', 'two']) {
      mkdirSync(join(folder, name))
      writeFileSync(join(folder, name, 'sandbox.json'), JSON.stringify({ configDirs: [`/etc/${name}`] }))
      if (name === 'one') expect(runningConfig(undefined, folder)).toEqual(['/etc/one'])
    }
    expect(() => runningConfig(undefined, folder)).toThrow(expect.objectContaining({ code: 'CLI_SANDBOX_AMBIGUOUS' }))
    expect(runningConfig('two', folder)).toEqual(['/etc/two'])
  })
})
