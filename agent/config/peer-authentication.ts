// PeerAuthentication (security.istio.io): schema and checks.
// Must not live here: which mode holds for a workload and the policies that enforce it (peer-authentication-policies.ts).
// Fields after istio.io/api security/v1beta1/peer_authentication.proto.
import { z } from 'zod'
import { defineKind, type Report, type Resource } from './resource.ts'
import { object, selector } from './schema.ts'

const mtls = object({ mode: z.enum(['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT']) })

const schema = z.strictObject({
  spec: object({ selector, mtls, portLevelMtls: z.record(z.string(), mtls) }),
  status: z.unknown().optional(),
})
export type PeerAuthenticationBody = z.infer<typeof schema>

export const peerAuthentication = defineKind({
  kind: 'PeerAuthentication',
  group: 'security.istio.io',
  versions: ['v1', 'v1beta1'],
  security: true,
  schema,
  mistakes: {
    'spec.mode': 'Write it inside mtls, as in mtls: {mode: STRICT}.',
    'spec.mTLS': 'The field is called mtls.',
    'spec.matchLabels': 'Write it inside selector.',
    'spec.portLevelMTLS': 'The field is called portLevelMtls.',
  },
  check,
})

function check(resource: Resource<PeerAuthenticationBody>, report: Report): void {
  const { spec } = resource.body
  const ports = Object.keys(spec.portLevelMtls ?? {})
  if (spec.portLevelMtls && Object.keys(spec.selector?.matchLabels ?? {}).length === 0) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: ['spec', 'portLevelMtls'],
      message: 'portLevelMtls needs a selector.',
      hint: 'Ports are those of chosen workloads; add selector.matchLabels.',
    })
  }
  for (const key of ports) {
    if (!/^[1-9]\d{0,4}$/.test(key) || Number(key) > 65535) {
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: ['spec', 'portLevelMtls', key],
        message: `${JSON.stringify(key)} is no port between 1 and 65535.`,
      })
    }
  }
  const disabled = [
    ...(spec.mtls?.mode === 'DISABLE' ? [['spec', 'mtls', 'mode']] : []),
    ...ports
      .filter((key) => spec.portLevelMtls?.[key]?.mode === 'DISABLE')
      .map((key) => ['spec', 'portLevelMtls', key, 'mode']),
  ]
  for (const path of disabled) {
    report({
      severity: 'info',
      code: 'CONFIG_NO_EFFECT',
      path,
      message: 'mode: DISABLE is read as PERMISSIVE: the mesh still offers mutual TLS, and takes plaintext.',
    })
  }
}
