import { describe, expect, it } from 'vitest'
import { loadText } from './folder.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const told = (text: string) =>
  translate(resourcesOf(loadText(text, 'f.yaml'))).problems.map((one) => `${one.severity} ${describeProblem(one)}`)

const NAMESPACE = (labels: string) => `apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {${labels}}}\n`
const POD = (name: string, labels = '') =>
  `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: shop, labels: {app: a${labels}}}\nspec: {containers: [{name: c}]}\nstatus: {podIP: 10.0.0.1}\n`
const POLICY = (spec: string) =>
  `---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {${spec}}\n`
const GATEWAY =
  '---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\nspec: {gatewayClassName: ambit-waypoint, listeners: [{name: m, port: 15008, protocol: HBONE}]}\n'
const MESH = 'istio.io/dataplane-mode: ambient'
const METHODS = 'rules: [{to: [{operation: {methods: [GET]}}]}]'
const HINT = 'Add a Gateway of class ambit-waypoint and label the namespace istio.io/use-waypoint with its name.'

describe('what is not carried out', () => {
  it('is a policy at workloads outside the mesh', () => {
    expect(
      told(NAMESPACE('x: y') + POD('a') + POD('b') + POLICY('rules: [{from: [{source: {namespaces: [x]}}]}]')),
    ).toEqual([
      'warning f.yaml:17: AuthorizationPolicy shop/p: Not enforced at 2 workloads (shop/a, …): not in the mesh. [CONFIG_NOT_ENFORCED] Label the namespace istio.io/dataplane-mode: ambient.',
    ])
  })

  it('is a rule about requests at workloads without a waypoint', () => {
    const where = 'f.yaml:14: AuthorizationPolicy shop/p: spec.rules: workload shop/a has no waypoint:'
    expect(told(NAMESPACE(MESH) + POD('a') + POLICY(METHODS))).toEqual([
      `warning ${where} the rules that ask for methods, paths, headers or tokens never match there. [CONFIG_NEEDS_WAYPOINT] ${HINT}`,
    ])
    expect(told(NAMESPACE(MESH) + POD('a') + POLICY(`action: DENY, ${METHODS}`))).toEqual([
      `warning ${where} its rules match there whatever the method, path, headers or token. [CONFIG_NEEDS_WAYPOINT] ${HINT}`,
    ])
  })

  it('is nothing where a waypoint judges the rule, and a rule about connections anywhere in the mesh', () => {
    expect(told(NAMESPACE(`${MESH}, istio.io/use-waypoint: wp`) + GATEWAY + POD('a') + POLICY(METHODS))).toEqual([])
    expect(told(NAMESPACE(MESH) + POD('a') + POLICY('rules: [{from: [{source: {namespaces: [x]}}]}]'))).toEqual([])
  })

  it('is a rule about requests by selector, everywhere, with l7Selector istio', () => {
    const mesh =
      '---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: "l7Selector: istio"}\n'
    expect(
      told(NAMESPACE(`${MESH}, istio.io/use-waypoint: wp`) + GATEWAY + mesh + POD('a') + POLICY(METHODS))[0],
    ).toContain(
      'workload shop/a judges connections only (l7Selector: istio): the rules that ask for methods, paths, headers or tokens never match there. [CONFIG_NEEDS_WAYPOINT] Use targetRefs',
    )
  })

  it('is a route, a DestinationRule or a targeted policy of a service without a waypoint', () => {
    const service =
      '---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n'
    const istio = (kind: string, spec: string) =>
      `---\napiVersion: networking.istio.io/v1\nkind: ${kind}\nmetadata: {name: x, namespace: shop}\nspec: {${spec}}\n`
    const route =
      '---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, namespace: shop}\nspec: {parentRefs: [{group: "", kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}\n'
    const all =
      istio('VirtualService', 'hosts: [a], http: [{route: [{destination: {host: a}}]}]') +
      istio('DestinationRule', 'host: a') +
      route +
      POLICY('targetRef: {kind: Service, name: a}, rules: []')
    const lines = told(NAMESPACE(MESH) + service + all)
    expect(
      lines.map((line) =>
        /: (\w+) shop\/.*: (a\.shop\.svc\.cluster\.local has no waypoint: .*?)\. \[CONFIG_NEEDS_WAYPOINT\]/
          .exec(line)
          ?.slice(1)
          .join(': '),
      ),
    ).toEqual(
      ['VirtualService', 'DestinationRule', 'HTTPRoute', 'AuthorizationPolicy'].map(
        (kind) => `${kind}: a.shop.svc.cluster.local has no waypoint: the ${kind} is not applied to it`,
      ),
    )
    expect(told(NAMESPACE(`${MESH}, istio.io/use-waypoint: wp`) + GATEWAY + service + all)).toEqual([])
  })
})
