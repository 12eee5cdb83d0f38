// The Secrets of the certificate authority: their names, Istio's layout of their keys, the roots that were in force before. Must not
// live here: which of them counts, and following them (kube-authority.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Clock } from '../../base/clock.ts'
import { create, read } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { SECRETS } from '../../kube/mesh-kinds.ts'
import type { KubeObject } from '../../kube/resource.ts'
import { newRoot, type AuthorityMaterial } from '../../pki/authority.ts'
import { mergePem, splitPem } from '../../pki/bundle.ts'
import type { KnownRoot } from '../../pki/rotation.ts'

/** In order: the first that is there counts. The second is Ambit's own. */
export const CA_SECRETS = ['cacerts', 'ambit-ca'] as const
export type SecretName = (typeof CA_SECRETS)[number]

/** Roots under which certificates were issued, for the next control. No secrets are in it; but what is in it is trusted. */
export const ROOTS_SECRET = 'ambit-ca-roots'
const ROOTS_KEY = 'roots.json'

export interface Secret extends KubeObject {
  readonly type?: string
  /** Base64. */
  readonly data?: Readonly<Record<string, string>>
}

/** Istio's layout (istio.io, "Plug in CA certificates"). Throws CA_STATE_INVALID naming the key that is missing. */
export function materialOf(secret: Secret, where: string): AuthorityMaterial {
  const text = (key: string): string => Buffer.from(secret.data?.[key] ?? '', 'base64').toString()
  const need = (key: string): string => {
    const found = text(key)
    if (found.trim() !== '') return found
    throw new AmbitError('CA_STATE_INVALID', `${where} has no ${key}.`, {
      hint: 'It needs ca-cert.pem, ca-key.pem, root-cert.pem and, for an intermediate, cert-chain.pem.',
    })
  }
  // A file that begins with the certificate and goes on with its chain is taken for both.
  const [certificate, ...above] = splitPem(need('ca-cert.pem'))
  if (certificate === undefined)
    throw new AmbitError('CA_STATE_INVALID', `ca-cert.pem in ${where} has no PEM certificate.`)
  const roots = text('root-cert.pem').trim() === '' ? certificate : text('root-cert.pem')
  const isRoot = splitPem(mergePem(roots)).includes(certificate)
  return {
    certificate,
    key: need('ca-key.pem'),
    roots: mergePem(roots),
    intermediates: isRoot ? '' : mergePem(certificate, ...above, text('cert-chain.pem')),
  }
}

/** Makes `ambit-ca` with a root of its own, unless another replica is faster. True if it was this one. */
export async function makeSecret(
  client: KubeClient,
  namespace: string,
  organization: string,
  clock: Clock,
): Promise<boolean> {
  const { key, certificate } = await newRoot(organization, clock)
  const text = { 'ca-cert.pem': certificate, 'ca-key.pem': key, 'root-cert.pem': certificate, 'cert-chain.pem': '' }
  try {
    await create<Secret>(client, SECRETS, {
      metadata: { namespace, name: CA_SECRETS[1] },
      type: 'Opaque',
      data: Object.fromEntries(Object.entries(text).map(([name, value]) => [name, base64(value)])),
    })
    return true
  } catch (error) {
    if (error instanceof KubeError && error.status === 409) return false
    throw error
  }
}

/** What `rootsData` put there; nothing where it is not there, or makes no sense. */
export function knownRootsOf(secret: Secret | undefined): KnownRoot[] {
  try {
    const text = Buffer.from(secret?.data?.[ROOTS_KEY] ?? '', 'base64').toString()
    const { roots } = JSON.parse(text) as { roots: unknown }
    if (!Array.isArray(roots)) return []
    return (roots as Partial<KnownRoot>[]).flatMap(({ pem, until }) => {
      const [root, ...others] = typeof pem === 'string' ? splitPem(pem) : []
      return root !== undefined && others.length === 0 && typeof until === 'number' ? [{ pem: root, until }] : []
    })
  } catch {
    return []
  }
}

export function rootsData(roots: readonly KnownRoot[]): Record<string, string> {
  return { [ROOTS_KEY]: base64(JSON.stringify({ roots }, undefined, 1)) }
}

export async function readSecret(client: KubeClient, namespace: string, name: string): Promise<Secret | undefined> {
  return await read<Secret>(client, SECRETS, { namespace, name })
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}
