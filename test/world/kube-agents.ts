// Agents of a cluster as its API server knows them: a Node, a pod of the agent bound to it, a token bound to that pod, as the
// kubelet would project it. No process runs: who talks to control with these is the test. Must not live here: that talk.
import { create, read } from '../../agent/kube/apply.ts'
import type { KubeClient } from '../../agent/kube/client.ts'
import { KubeError } from '../../agent/kube/errors.ts'
import { CONFIG_MAPS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS } from '../../agent/kube/mesh-kinds.ts'
import type { KubeObject, Resource } from '../../agent/kube/resource.ts'
import { eventually } from './sandbox.ts'

export const SYSTEM_NAMESPACE = 'ambit-system'

/** Creates it unless it is there already. */
export async function make<T extends KubeObject>(client: KubeClient, resource: Resource, object: T): Promise<T> {
  try {
    return await create(client, resource, object)
  } catch (error) {
    if (!(error instanceof KubeError) || error.status !== 409) throw error
    return (await read<T>(client, resource, object.metadata)) as T
  }
}

/** The system namespace with the account of agents. */
export async function makeAgentAccount(client: KubeClient): Promise<void> {
  await make(client, NAMESPACES, { metadata: { name: SYSTEM_NAMESPACE } })
  await make(client, SERVICE_ACCOUNTS, { metadata: { namespace: SYSTEM_NAMESPACE, name: 'ambit-agent' } })
}

/** A token as the agent on `node` has one. The node is made too. */
export async function agentToken(client: KubeClient, node: string): Promise<string> {
  await make(client, NODES, { metadata: { name: node } })
  const name = `ambit-agent-${node}`
  const pod = await make(client, PODS, {
    metadata: { namespace: SYSTEM_NAMESPACE, name, labels: { app: 'ambit-agent' } },
    spec: {
      nodeName: node,
      serviceAccountName: 'ambit-agent',
      automountServiceAccountToken: false,
      containers: [{ name: 'agent', image: 'none' }],
    },
  } as KubeObject)
  const asked = await client.ask<{ readonly status: { readonly token: string } }>({
    method: 'POST',
    path: `/api/v1/namespaces/${SYSTEM_NAMESPACE}/serviceaccounts/ambit-agent/token`,
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {
        audiences: ['istio-ca'],
        expirationSeconds: 3_600,
        boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid: pod.metadata.uid },
      },
    },
  })
  return asked.status.token
}

/** The mesh's roots as control wrote them for everybody, PEM. */
export async function meshRoots(client: KubeClient): Promise<string> {
  const place = { namespace: SYSTEM_NAMESPACE, name: 'ambit-root-cert' }
  return await eventually('control wrote the roots', async () => {
    const found = await read<KubeObject & { readonly data?: Readonly<Record<string, string>> }>(
      client,
      CONFIG_MAPS,
      place,
    )
    return found?.data?.['root-cert.pem'] ?? ''
  })
}
