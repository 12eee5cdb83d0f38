// Telemetry (telemetry.istio.io): checked; what it asks for is not served yet (access logs and metrics are always on).
// Fields after istio.io/api telemetry/v1alpha1/telemetry.proto.
import { z } from 'zod'
import { defineKind } from './resource.ts'
import { object, selector, targetRef } from './schema.ts'

const providers = z.array(z.strictObject({ name: z.string().min(1) }))
const match = object({ mode: z.enum(['CLIENT_AND_SERVER', 'CLIENT', 'SERVER']) })
const metricMatch = object({
  metric: z.string(),
  customMetric: z.string(),
  mode: z.enum(['CLIENT_AND_SERVER', 'CLIENT', 'SERVER']),
})

export const telemetry = defineKind({
  kind: 'Telemetry',
  group: 'telemetry.istio.io',
  versions: ['v1', 'v1alpha1'],
  support: 'not-yet',
  feature: 'Telemetry resources (access logs and metrics are on by default)',
  schema: z.strictObject({
    spec: object({
      selector,
      targetRef,
      targetRefs: z.array(targetRef).max(16),
      tracing: z.array(
        object({
          match,
          providers,
          randomSamplingPercentage: z.number().min(0).max(100),
          disableSpanReporting: z.boolean(),
          disableContextPropagation: z.boolean(),
          customTags: z.record(z.string(), z.looseObject({})),
          useRequestIdForTraceSampling: z.boolean(),
          enableIstioTags: z.boolean(),
        }),
      ),
      metrics: z.array(
        object({
          providers,
          overrides: z.array(
            object({
              match: metricMatch,
              disabled: z.boolean(),
              tagOverrides: z.record(
                z.string(),
                object({ operation: z.enum(['UPSERT', 'REMOVE']), value: z.string() }),
              ),
            }),
          ),
          reportingInterval: z.string(),
        }),
      ),
      accessLogging: z.array(
        object({ match, providers, disabled: z.boolean(), filter: object({ expression: z.string() }) }),
      ),
    }),
    status: z.unknown().optional(),
  }),
  mistakes: {
    'spec.accessLogging[].file':
      'An access log names a provider, as in providers: [{name: envoy}]; where it writes to is the provider’s (MeshConfig extensionProviders), /dev/stdout by default.',
    'spec.accessLogging[].path': 'An access log names a provider, as in providers: [{name: envoy}].',
  },
})
