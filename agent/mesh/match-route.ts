// A Route compiled for matching: per request the first rule that matches, with what its action needs ready. The two
// dialects differ in their path matches only (raw prefix against path elements); their order of evaluation is the order of
// the rules, which the translator sorts for HTTPRoute. Semantics: VirtualService HTTPMatchRequest, HTTPRouteMatch.
// Must not live here: carrying the action out (waypoint/), sorting (config/).
import { compileRegex } from '../base/regex.ts'
import type { RouteStringMatch } from './match.ts'
import { compileHeaderOps, type CompiledHeaderOps } from './header-ops.ts'
import { headerValue, queryValue, withoutQuery, type RequestAttributes } from './request.ts'
import { compileRetry, type CompiledRetry } from './retry.ts'
import { compileRewritePath, type RewritePath } from './rewrite.ts'
import type { Destination, PathMatch, Route, RouteMatch, RouteRule } from './route.ts'
import { compileWeights, type Weights } from './weighted.ts'

export interface CompiledDestination {
  readonly destination: Destination
  readonly requestHeaders: CompiledHeaderOps | undefined
  readonly responseHeaders: CompiledHeaderOps | undefined
}

/** A rule with everything that does not depend on the request. */
export interface CompiledRule {
  readonly rule: RouteRule
  readonly index: number
  readonly requestHeaders: CompiledHeaderOps | undefined
  readonly responseHeaders: CompiledHeaderOps | undefined
  /** Empty for redirects and direct responses. */
  readonly destinations: readonly CompiledDestination[]
  readonly weights: Weights
  readonly retry: CompiledRetry
}

/** One match of a rule: the answer of matchRoute. Made at compile time. */
export interface RouteMatched {
  readonly compiled: CompiledRule
  readonly rule: RouteRule
  /** Index into rule.matches; −1 when the rule has none. */
  readonly matchIndex: number
  readonly match: RouteMatch | undefined
  /** `<rule>` or `<rule>.<match>`, for logs. */
  readonly name: string
  /** New path (with query) of a request that met this match; undefined where the path stays. */
  readonly rewritePath: RewritePath | undefined
}

type Test = (request: RequestAttributes, path: string) => boolean

interface Candidate {
  readonly tests: readonly Test[]
  readonly result: RouteMatched
}

export interface CompiledRoute {
  readonly route: Route
  readonly candidates: readonly Candidate[]
}

/** Compiles a route. Throws REGEX_INVALID, REGEX_TOO_LARGE or REGEX_REWRITE_INVALID for a user's regular expression. */
export function compileRoute(route: Route): CompiledRoute {
  const candidates: Candidate[] = []
  for (const [index, rule] of route.rules.entries()) {
    const compiled = compileRule(rule, index)
    if (rule.matches.length === 0) candidates.push(candidate(route, compiled, undefined, -1))
    for (const [matchIndex, match] of rule.matches.entries()) {
      candidates.push(candidate(route, compiled, match, matchIndex))
    }
  }
  return { route, candidates }
}

/** The first match in order, or undefined: then the request has no route (404). */
export function matchRoute(compiled: CompiledRoute, request: RequestAttributes): RouteMatched | undefined {
  const path = withoutQuery(request.path)
  const { candidates } = compiled
  next: for (let i = 0; i < candidates.length; i++) {
    const { tests, result } = candidates[i] as Candidate
    for (let j = 0; j < tests.length; j++) if (!(tests[j] as Test)(request, path)) continue next
    return result
  }
  return undefined
}

function compileRule(rule: RouteRule, index: number): CompiledRule {
  const destinations = rule.action.type === 'forward' ? rule.action.destinations : []
  return {
    rule,
    index,
    requestHeaders: compileHeaderOps(rule.requestHeaders),
    responseHeaders: compileHeaderOps(rule.responseHeaders),
    destinations: destinations.map((destination) => ({
      destination,
      requestHeaders: compileHeaderOps(destination.requestHeaders),
      responseHeaders: compileHeaderOps(destination.responseHeaders),
    })),
    weights: compileWeights(destinations.map((destination) => destination.weight)),
    retry: compileRetry(rule.retry),
  }
}

function candidate(route: Route, compiled: CompiledRule, match: RouteMatch | undefined, matchIndex: number): Candidate {
  const { rule } = compiled
  return {
    tests: match ? testsOf(match) : [],
    result: {
      compiled,
      rule,
      matchIndex,
      match,
      name: match?.name ? (rule.name ? `${rule.name}.${match.name}` : match.name) : rule.name,
      rewritePath: compileRewritePath(rule.rewrite, match?.path, route.dialect),
    },
  }
}

/** Cheap tests first: most requests fail on the port, method or path. */
function testsOf(match: RouteMatch): Test[] {
  const tests: Test[] = []
  const { port, sourceNamespace, sourceLabels } = match
  if (port !== 0) tests.push((request) => request.servicePort === port)
  if (match.method) tests.push(textTest(match.method, (request) => request.method))
  if (match.path) tests.push(pathTest(match.path))
  if (match.authority) tests.push(textTest(match.authority, (request) => request.authority))
  if (match.scheme) tests.push(textTest(match.scheme, (request) => request.scheme))
  if (sourceNamespace !== '') tests.push((request) => request.sourceNamespace === sourceNamespace)
  const labels = Object.entries(sourceLabels)
  if (labels.length > 0) {
    tests.push((request) => {
      for (let i = 0; i < labels.length; i++) {
        const [key, value] = labels[i] as [string, string]
        if (request.sourceLabels[key] !== value) return false
      }
      return true
    })
  }
  for (const { name, match: wanted } of match.headers) {
    const test = stringTest(wanted)
    tests.push((request) => {
      const value = headerValue(request.headers, name)
      return value !== undefined && test(value)
    })
  }
  for (const { name, match: unwanted } of match.withoutHeaders) {
    const test = stringTest(unwanted)
    tests.push((request) => {
      const value = headerValue(request.headers, name)
      return value === undefined || !test(value)
    })
  }
  for (const { name, match: wanted } of match.queryParams) {
    const test = stringTest(wanted)
    tests.push((request) => {
      const value = queryValue(request.path, name)
      return value !== undefined && test(value)
    })
  }
  return tests
}

function textTest(match: RouteStringMatch, attribute: (request: RequestAttributes) => string): Test {
  const test = stringTest(match)
  return (request) => test(attribute(request))
}

/** A StringMatch as a predicate. `present` is true of every value, also the empty one. */
export function stringTest(match: RouteStringMatch): (text: string) => boolean {
  switch (match.type) {
    case 'present':
      return () => true
    case 'regex': {
      const regex = compileRegex(match.value)
      return (text) => regex.matches(text)
    }
    case 'exact': {
      const { value } = match
      if (!match.ignoreCase) return (text) => text === value
      const lower = value.toLowerCase()
      return (text) => text.length === lower.length && text.toLowerCase() === lower
    }
    case 'prefix': {
      const { value } = match
      if (!match.ignoreCase) return (text) => text.startsWith(value)
      const lower = value.toLowerCase()
      return (text) => text.slice(0, lower.length).toLowerCase() === lower
    }
  }
}

function pathTest(match: PathMatch): Test {
  if (match.type === 'elements') {
    // `/foo` is met by `/foo` and `/foo/…`, never by `/foobar`; a trailing slash of the value counts for nothing.
    const value = match.value.endsWith('/') ? match.value.slice(0, -1) : match.value
    return (_request, path) =>
      path.startsWith(value) && (path.length === value.length || path.charCodeAt(value.length) === 47)
  }
  const test = stringTest(match)
  return (_request, path) => test(path)
}
