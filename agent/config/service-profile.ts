// ServiceProfile (linkerd.io): checked strictly, so that a profile that would be wrong in Linkerd is refused with the
// right field; what it asks for is not served yet. Fields after linkerd2 charts/linkerd-crds serviceprofile.yaml.
import { z } from 'zod'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import { checkRegex, object, positiveDuration } from './schema.ts'

interface RequestMatch {
  method?: string | undefined
  pathRegex?: string | undefined
  all?: RequestMatch[] | undefined
  any?: RequestMatch[] | undefined
  not?: RequestMatch | undefined
}
const requestMatch: z.ZodType<RequestMatch> = z.lazy(() =>
  object({
    method: z.string(),
    pathRegex: z.string(),
    all: z.array(requestMatch),
    any: z.array(requestMatch),
    not: requestMatch,
  }),
)

interface ResponseMatch {
  status?: { min?: number | undefined; max?: number | undefined } | undefined
  all?: ResponseMatch[] | undefined
  any?: ResponseMatch[] | undefined
  not?: ResponseMatch | undefined
}
const responseMatch: z.ZodType<ResponseMatch> = z.lazy(() =>
  object({
    status: object({ min: z.int().min(100).max(599), max: z.int().min(100).max(599) }),
    all: z.array(responseMatch),
    any: z.array(responseMatch),
    not: responseMatch,
  }),
)

const schema = z.strictObject({
  spec: object({
    routes: z.array(
      z.strictObject({
        name: z.string().min(1),
        condition: requestMatch,
        isRetryable: z.boolean().optional(),
        timeout: positiveDuration.optional(),
        responseClasses: z
          .array(z.strictObject({ condition: responseMatch, isFailure: z.boolean().optional() }))
          .optional(),
      }),
    ),
    retryBudget: object({ retryRatio: z.number().min(0), minRetriesPerSecond: z.int().min(0), ttl: positiveDuration }),
    dstOverrides: z.array(object({ authority: z.string(), weight: z.unknown() })),
    opaquePorts: z.array(z.string()),
  }),
})

export const serviceProfile = defineKind({
  kind: 'ServiceProfile',
  group: 'linkerd.io',
  versions: ['v1alpha2', 'v1alpha1'],
  support: 'not-yet',
  feature: 'Linkerd ServiceProfiles (routes, retry budgets, response classes)',
  schema,
  mistakes: {
    'spec.routes[].condition.path':
      'The field is called pathRegex and is an anchored regular expression, as in pathRegex: /health.',
    'spec.routes[].responseClasses[].condition.statusCode':
      'The field is called status and is a range, as in status: {min: 200, max: 200}.',
    'spec.routes[].responseClasses[].statusCode': 'Write condition: {status: {min: 200, max: 200}}.',
    'spec.routes[].retryable': 'The field is called isRetryable.',
  },
  check,
})

function check(resource: Resource<z.infer<typeof schema>>, report: Report): void {
  if (!resource.metadata.name.includes('.svc.')) {
    report({
      severity: 'warning',
      code: 'CONFIG_INVALID_VALUE',
      path: ['metadata', 'name'],
      message: 'A ServiceProfile is named after the full host name of its service.',
      hint: `Name it like my-service.${resource.metadata.namespace}.svc.cluster.local.`,
    })
  }
  for (const [index, route] of (resource.body.spec.routes ?? []).entries())
    checkMatch(route.condition, ['spec', 'routes', index, 'condition'], report)
}

function checkMatch(match: RequestMatch, path: FieldPath, report: Report): void {
  if (Object.values(match).every((value) => value === undefined)) {
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path,
      message: 'A condition needs one of method, pathRegex, all, any and not.',
    })
  }
  if (match.pathRegex !== undefined) checkRegex(match.pathRegex, [...path, 'pathRegex'], report)
  for (const key of ['all', 'any'] as const)
    for (const [index, one] of (match[key] ?? []).entries()) checkMatch(one, [...path, key, index], report)
  if (match.not) checkMatch(match.not, [...path, 'not'], report)
}
