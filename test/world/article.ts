// The article that people copy service-mesh YAML from, block by block, and what Ambit makes of each: it works, it is
// refused with the fix (where the article is wrong), or it waits for a feature that is named. The blocks in
// test/world/article/ are verbatim copies. Run this file to write deploy/examples/article.md.
import { readFileSync, writeFileSync } from 'node:fs'
import { loadText } from '../../agent/config/folder.ts'
import { describeProblem, type Problem } from '../../agent/config/problem.ts'
import { resourcesOf, type StoreState } from '../../agent/config/store.ts'
import { translate } from '../../agent/config/translate.ts'
import type { Translation } from '../../agent/config/translation.ts'

export type Verdict = 'works' | 'refused' | 'not yet'

export interface Block {
  /** File name in test/world/article/. */
  readonly file: string
  /** Where it stands in the article. */
  readonly section: string
  readonly verdict: Verdict
  /** What it does here, or what is missing. */
  readonly note: string
  /** The article's text → what to write instead, where it is refused. */
  readonly fix?: readonly (readonly [string, string])[]
}

export const blocks: readonly Block[] = [
  {
    file: '01-service-and-deployment.yaml',
    section: 'Core components',
    verdict: 'works',
    note: 'The annotation that asks for a sidecar has no effect and excludes nothing: the pods are enrolled by the label of their namespace.',
  },
  {
    file: '02-gateway-and-virtualservice.yaml',
    section: 'Istio: Gateway',
    verdict: 'not yet',
    note: 'Ingress gateways. The VirtualService is for that gateway only; add `mesh` to its `gateways` and it routes in the mesh.',
  },
  {
    file: '03-serviceprofile.yaml',
    section: 'Linkerd: ServiceProfile',
    verdict: 'refused',
    note: 'Linkerd refuses it too: `path` is `pathRegex`, `statusCode` is a range. Corrected it is known and not yet served.',
    fix: [
      ['path: /health', 'pathRegex: /health'],
      ['statusCode: 200', 'status: {min: 200, max: 200}'],
    ],
  },
  {
    file: '04-destinationrule.yaml',
    section: 'Service discovery and balancing',
    verdict: 'works',
    note: 'Connection pool and outlier detection hold at the waypoint of the service.',
  },
  {
    file: '05-virtualservice-weights.yaml',
    section: 'Traffic management',
    verdict: 'works',
    note: '80/20 between the subsets. The article never declares them: a DestinationRule must (the shop has one).',
  },
  {
    file: '06-circuit-breaker.yaml',
    section: 'Circuit breaking',
    verdict: 'works',
    note: '`LEAST_CONN` is the old name of `LEAST_REQUEST`, and is taken as that. Its policy holds unless an older DestinationRule of the same host has one.',
  },
  {
    file: '07-peerauthentication.yaml',
    section: 'mTLS',
    verdict: 'works',
    note: 'Plaintext to every pod of its namespace is refused.',
  },
  {
    file: '08-authorizationpolicy.yaml',
    section: 'Access control',
    verdict: 'works',
    note: 'With a waypoint methods and paths are judged there, against the original client. Without one the rule can never match, so that everything is denied, and never opened.',
  },
  {
    file: '09-jwt-policy.yaml',
    section: 'Authentication',
    verdict: 'not yet',
    note: 'JSON Web Tokens. Until then the rule never matches: the backend is closed.',
  },
  {
    file: '10-destinationrule-prometheus.yaml',
    section: 'Metrics',
    verdict: 'works',
    note: 'A connection pool like any other. (Metrics need no configuration.)',
  },
  {
    file: '11-tracing-configmap.yaml',
    section: 'Tracing',
    verdict: 'not yet',
    note: 'Tracing. The ConfigMap is for an OpenTelemetry Collector; no mesh reads it.',
  },
  {
    file: '12-telemetry.yaml',
    section: 'Logs',
    verdict: 'refused',
    note: 'Istio refuses it too: Telemetry is of `telemetry.istio.io`, and an access log names a provider. Corrected it is known and not yet served; access logs are on by default.',
    fix: [
      ['networking.istio.io/v1alpha3', 'telemetry.istio.io/v1'],
      ['file:\n      path: /dev/stdout', 'providers:\n    - name: envoy'],
    ],
  },
  {
    file: '13-optimized-destinationrule.yaml',
    section: 'Performance',
    verdict: 'works',
    note: 'A tighter circuit breaker, again with `LEAST_CONN`.',
  },
]

const here = (name: string) => new URL(name, import.meta.url)

export function textOf(block: Block): string {
  return readFileSync(here(`article/${block.file}`), 'utf8')
}

/** The article's text with its mistakes corrected. Each correction must apply. */
export function fixedTextOf(block: Block): string {
  let text = textOf(block)
  for (const [wrong, right] of block.fix ?? []) {
    if (!text.includes(wrong)) throw new Error(`${block.file} does not contain ${JSON.stringify(wrong)}`)
    text = text.replace(wrong, right)
  }
  return text
}

export interface Judged {
  readonly state: StoreState
  readonly translation: Translation
  /** Those about the block, not about what it stands in. */
  readonly problems: readonly Problem[]
}

/** Loads a block into the little mesh that the article presumes. */
export function judge(block: Block, text = textOf(block)): Judged {
  const base = loadText(readFileSync(here('article-base.yaml'), 'utf8'), 'base.yaml')
  const own = loadText(text, block.file)
  const state = resourcesOf({ ...base, files: [...base.files, ...own.files] })
  const translation = translate(state)
  const problems = [...state.problems, ...translation.problems].filter((one) => one.file === block.file)
  return { state, translation, problems }
}

const MARKS: Readonly<Record<Verdict, string>> = {
  works: 'works',
  refused: 'refused, with the fix',
  'not yet': 'not yet',
}

/** The table as Markdown. */
export function renderTable(): string {
  const lines = [
    "# The article's YAML, block by block",
    '',
    'What Ambit makes of the YAML of a much-copied article about service meshes (Istio and Linkerd resources). Each block is in',
    '`test/world/article/`; `test/article.test.ts` holds every row to what is said here. The blocks that work make up the',
    '[shop](shop/).',
    '',
    '| block | kinds | verdict | |',
    '| --- | --- | --- | --- |',
  ]
  for (const block of blocks) {
    const kinds = [...textOf(block).matchAll(/^kind: (\w+)/gm)].map((match) => match[1])
    lines.push(`| ${block.section} | ${kinds.join(', ')} | ${MARKS[block.verdict]} | ${block.note} |`)
  }
  lines.push('', '## What is said', '', 'The messages of `ambit analyze` for the blocks that do not simply work.', '')
  for (const block of blocks) {
    const { problems } = judge(block)
    const told = problems.filter((one) => one.code !== 'CONFIG_DENIES_TARGETS' && one.code !== 'CONFIG_CONFLICT')
    if (told.length === 0) continue
    lines.push(
      `${block.section}:`,
      '',
      '```',
      ...told.map((one) => `${one.severity}: ${describeProblem(one)}`),
      '```',
      '',
    )
  }
  return `${lines.join('\n').trimEnd()}\n`
}

export const TABLE_FILE = new URL('../../deploy/examples/article.md', import.meta.url)

if (import.meta.filename === process.argv[1]) writeFileSync(TABLE_FILE, renderTable())
