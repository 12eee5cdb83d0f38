// The alert rules and dashboards that are shipped: Prometheus' own tool takes the rules and each alert is tried; they name
// only metrics and labels that the programs have. Against a real scrape: test/kube/shop/metrics.ts.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { explainedLabels, registeredMetrics } from '../../deploy/reference/metrics.ts'
import {
  alerts,
  dashboardQueries,
  dashboards,
  familyOf,
  groupLabels,
  RULES,
  RULES_TEST,
  selectorsOf,
} from '../world/promql.ts'
import { run } from '../world/sandbox.ts'

/** Labels of the scraped pod, by deploy/prometheus/prometheus.yaml and the chart's PodMonitors. */
const TARGET = ['namespace', 'pod', 'node', 'app', 'gateway_networking_k8s_io_gateway_name']

describe('the alert rules', () => {
  it("are good by Prometheus' own tool", async () => {
    const checked = await run(['promtool', 'check', 'rules', RULES])
    expect(checked.code, checked.out + checked.err).toBe(0)
    expect(checked.out).toMatch(new RegExp(`SUCCESS: ${alerts().length} rules found`))
  })

  it('fire when they should and not otherwise', async () => {
    const tried = await run(['promtool', 'test', 'rules', RULES_TEST])
    expect(tried.code, tried.out + tried.err).toBe(0)
  })

  it('are each tried', () => {
    interface Tests {
      tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[]
    }
    const { tests } = parse(readFileSync(RULES_TEST, 'utf8')) as Tests
    const fired = tests.flatMap((one) => one.alert_rule_test).filter((one) => one.exp_alerts.length > 0)
    expect(new Set(fired.map((one) => one.alertname))).toEqual(new Set(alerts().map((one) => one.where)))
  })
})

describe('the dashboards', () => {
  it('have names of their own and a query in every panel', () => {
    const all = dashboards()
    expect(new Set(all.map((one) => one.uid)).size).toBe(all.length)
    const panels = all.flatMap((one) => one.panels).filter((panel) => panel.type !== 'row')
    expect(panels.length).toBeGreaterThan(20)
    for (const panel of panels) {
      expect(panel.targets?.length, panel.title).toBeGreaterThan(0)
    }
  })
})

describe('every query', () => {
  const families = new Map(registeredMetrics().map((family) => [family.name, family]))
  const istio = (name: string): string[] => explainedLabels(name.startsWith('istio_tcp_') ? 'connections' : 'requests')

  it.each([...alerts(), ...dashboardQueries()])('$where asks only for what there is', ({ expr }) => {
    const selectors = selectorsOf(expr)
    expect(selectors.length).toBeGreaterThan(0)
    const known = new Set(TARGET)
    for (const { name, labels } of selectors) {
      const own = new Set(TARGET)
      if (/^(istio|ambit)_/.test(name)) {
        const family = families.get(familyOf(name))
        expect(family, `${name} is no metric of ours`).toBeDefined()
        // A suffix of a histogram's is for histograms.
        expect(familyOf(name) === name || family?.type === 'histogram', name).toBe(true)
        for (const label of family?.labels ?? istio(name)) own.add(label)
      }
      for (const label of labels) expect(own, `${name} has no label ${label}`).toContain(label)
      for (const label of own) known.add(label)
    }
    for (const label of groupLabels(expr)) expect(known, `nothing in it has a label ${label}`).toContain(label)
  })
})
