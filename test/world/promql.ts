// The queries that are shipped, and what they ask for: names, labels. Reads as much of PromQL as they use. Must not live here:
// expectations, running them (prometheus.ts).
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { root } from './sandbox.ts'

export const MONITORING = join(root, 'deploy/chart/monitoring')
export const RULES = join(MONITORING, 'rules.yaml')
export const RULES_TEST = join(root, 'deploy/prometheus/rules.test.yaml')

export interface Query {
  /** Alert, or dashboard and panel. */
  readonly where: string
  readonly expr: string
}

export interface Selector {
  readonly name: string
  /** As it is written, without a range: `up{app="x"}`. */
  readonly text: string
  readonly labels: readonly string[]
}

interface Rules {
  readonly groups: readonly { readonly name: string; readonly rules: readonly { alert: string; expr: string }[] }[]
}

interface Dashboard {
  readonly title: string
  readonly uid: string
  readonly panels: readonly {
    readonly title: string
    readonly type: string
    readonly targets?: readonly { readonly expr: string }[]
  }[]
}

export function alerts(): Query[] {
  const { groups } = parse(readFileSync(RULES, 'utf8')) as Rules
  return groups.flatMap((group) => group.rules.map((rule) => ({ where: rule.alert, expr: rule.expr })))
}

export function dashboards(): Dashboard[] {
  const folder = join(MONITORING, 'dashboards')
  return readdirSync(folder).map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Dashboard)
}

/** Every query of every panel, with Grafana's variables as everything and an interval of a minute. */
export function dashboardQueries(): Query[] {
  return dashboards().flatMap((dashboard) =>
    dashboard.panels.flatMap((panel) =>
      (panel.targets ?? []).map(({ expr }) => ({
        where: `${dashboard.title} / ${panel.title}`,
        expr: expr.replaceAll('$__rate_interval', '1m').replaceAll(/\$(namespace|node)\b/g, '.*'),
      })),
    ),
  )
}

const SELECTOR = /\b(up|(?:istio|ambit|process|nodejs)_[a-z0-9_]+)(\{[^}]*\})?/g

/** What a query selects. Labels in `by (…)` are no names of metrics, though some begin like one. */
export function selectorsOf(expr: string): Selector[] {
  return [...expr.replaceAll(/\bby \([^)]*\)/g, ' ').matchAll(SELECTOR)].map(([text, name = '', braces = '']) => ({
    name,
    text,
    labels: [...braces.matchAll(/([a-z0-9_]+)(?:=~|!~|!=|=)"/g)].map((match) => match[1] as string),
  }))
}

/** The labels a query groups by, except the bound of a bucket. */
export function groupLabels(expr: string): string[] {
  const all = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap((match) => (match[1] as string).split(','))
  return [...new Set(all.map((label) => label.trim()))].filter((label) => label !== 'le')
}

/** The family of a series' name. */
export function familyOf(name: string): string {
  return name.replace(/_(bucket|sum|count)$/, '')
}
