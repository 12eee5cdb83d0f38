// Who is believed, and by what authority, on a real API server without nodes: `ambit control` as a process, tokens that the API server
// made for pods, and clients that show them.
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../agent/base/clock.ts'
import { silentLog } from '../../../agent/base/log.ts'
import { MeshState } from '../../../agent/mesh/state.ts'
import { splitPem } from '../../../agent/pki/bundle.ts'
import { makeRequest } from '../../../agent/pki/csr.ts'
import { RSA, TestCa } from '../../../agent/pki/testing.ts'
import { connectControl } from '../../../agent/wire/connect-control.ts'
import { agentKinds, type ControlConnection } from '../../../agent/wire/contract.ts'
import { startReadyControl, type ControlProcess } from '../../world/control-process.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, uniqueName } from '../../world/sandbox.ts'
import { documents } from '../../world/yaml.ts'

const SPREAD_SECONDS = 2

let cluster: Cluster
let control: ControlProcess
const folder = mkdtempSync(join(tmpdir(), 'ambit-identity-'))
const open: ControlConnection[] = []

beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  await applied(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'ambit-system' } },
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'ambit-agent', namespace: 'ambit-system' } },
    ...['frontend', 'elsewhere', 'finished'].map((name) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace: 'shop' },
    })),
    ...['n1', 'n2'].map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } })),
    podOf('ambit-system', 'agent-1', 'ambit-agent', 'n1'),
    podOf('shop', 'frontend', 'frontend', 'n1'),
    podOf('shop', 'elsewhere', 'elsewhere', 'n2'),
    podOf('shop', 'finished', 'finished', 'n1'),
  )
  const ended = '{"status":{"phase":"Succeeded"}}'
  await ok(['patch', 'pod', 'finished', '-n', 'shop', '--subresource=status', '-p', ended])
  control = await started()
}, BUILD_MS)
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
})
afterAll(async () => {
  await control?.stop()
  expect(await cluster?.close()).toEqual([])
  rmSync(folder, { recursive: true })
})

function podOf(namespace: string, name: string, serviceAccountName: string, nodeName: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: { serviceAccountName, nodeName, containers: [{ name: 'c', image: 'none' }] },
  }
}

async function ok(args: readonly string[], input?: string): Promise<string> {
  const { code, out, err } = await cluster.kubectl(args, input)
  expect({ args: args.join(' '), code, err: code === 0 ? '' : err }).toMatchObject({ code: 0 })
  return out.trim()
}

async function applied(...objects: readonly object[]): Promise<void> {
  await ok(['apply', '-f', '-'], documents(...objects.map((one) => JSON.stringify(one))))
}

async function started(): Promise<ControlProcess> {
  const flags = ['--trust-spread-seconds', String(SPREAD_SECONDS)]
  const one = await startReadyControl(cluster.sandbox.layout.kubeconfig, flags)
  return one
}

async function roots(): Promise<string> {
  const path = 'jsonpath={.data.root-cert\\.pem}'
  return ok(['get', 'configmap', 'ambit-root-cert', '-n', 'ambit-system', '-o', path])
}

async function tokenOf(account: string, pod: string | undefined, ...more: readonly string[]): Promise<string> {
  const [namespace, name] = account.split('/') as [string, string]
  const bound = pod === undefined ? [] : ['--bound-object-kind=Pod', `--bound-object-name=${pod}`]
  return ok(['create', 'token', name, '-n', namespace, ...bound, ...(more.length > 0 ? more : ['--audience=istio-ca'])])
}

/** A client of control with this token, and the roots that pods mount. */
async function client(token: string): Promise<ControlConnection> {
  const rootCertFile = join(folder, 'root-cert.pem')
  const tokenFile = join(folder, `token-${open.length}`)
  writeFileSync(rootCertFile, await eventually('the roots are told', roots))
  writeFileSync(tokenFile, token)
  const { address } = await control.dump()
  const connection = await connectControl({
    address: String(address),
    rootCertFile,
    tokenFile,
    kinds: agentKinds,
    node: { type: 'agent', address: '', name: 'agent-1', namespace: 'ambit-system', node: 'n1' },
    state: new MeshState(),
    clock: systemClock,
    log: silentLog,
  })
  open.push(connection)
  return connection
}

const agent = async (): Promise<ControlConnection> => client(await tokenOf('ambit-system/ambit-agent', 'agent-1'))

async function sign(connection: ControlConnection, account = 'shop/frontend'): Promise<readonly string[]> {
  const [namespace, serviceAccount] = account.split('/') as [string, string]
  const identity = { trustDomain: 'cluster.local', namespace, serviceAccount }
  const { csr } = await makeRequest(identity)
  return connection.sign({ csr, identity, validitySeconds: 3_600 })
}

describe('a token', () => {
  it('of an agent’s pod gets the certificates of pods on its node, and of no others', async () => {
    const connection = await agent()
    const [leaf] = await sign(connection)
    expect(new X509Certificate(leaf!).subjectAltName).toContain('spiffe://cluster.local/ns/shop/sa/frontend')
    await expect(sign(connection, 'shop/elsewhere')).rejects.toMatchObject({ code: 'CONTROL_DENIED' })
    await expect(sign(connection, 'shop/finished')).rejects.toMatchObject({ code: 'CONTROL_DENIED' })
    await expect(sign(connection, 'ambit-system/ambit-agent')).rejects.toMatchObject({ code: 'CONTROL_DENIED' })
  })

  it.each([
    [
      'for another audience',
      () => tokenOf('ambit-system/ambit-agent', 'agent-1', '--audience=vault'),
      /audience vault, not 'istio-ca'/,
    ],
    [
      'for the API server',
      () => tokenOf('ambit-system/ambit-agent', 'agent-1', '--duration=1h'),
      /audience .*, not 'istio-ca'/,
    ],
    [
      'of another cluster',
      () => Promise.resolve(FOREIGN),
      /not of this cluster \(issuer https:\/\/elsewhere\.example\)/,
    ],
    ['that is none', () => Promise.resolve('nonsense'), /not a signed JWT/],
  ])('%s is refused in one clear sentence', async (_, token, why) => {
    const refusal = sign(await client(await token()))
    await expect(refusal).rejects.toMatchObject({
      code: 'CONTROL_UNAUTHENTICATED',
      message: expect.stringMatching(why) as string,
    })
  })

  it('that is bound to no pod is of no agent', async () => {
    const refusal = sign(await client(await tokenOf('ambit-system/ambit-agent', undefined)))
    await expect(refusal).rejects.toThrow('not bound to a node')
  })

  it('of a pod that is gone is refused', async () => {
    await applied(podOf('ambit-system', 'agent-gone', 'ambit-agent', 'n1'))
    const connection = await client(await tokenOf('ambit-system/ambit-agent', 'agent-gone'))
    await sign(connection)
    await ok(['delete', 'pod', 'agent-gone', '-n', 'ambit-system', '--force', '--grace-period=0'])
    // A token is believed for ten seconds after it was reviewed.
    await eventually(
      'it is refused',
      async () =>
        sign(connection).then(
          () => false,
          (error: { code: string }) => error.code === 'CONTROL_UNAUTHENTICATED',
        ),
      20_000,
    )
  })
})

/** Signed by nobody; its claims say where it is from. */
const FOREIGN = [
  { alg: 'RS256', kid: 'x' },
  {
    iss: 'https://elsewhere.example',
    sub: 'system:serviceaccount:ambit-system:ambit-agent',
    aud: ['istio-ca'],
    exp: 4_000_000_000,
  },
  'signature',
]
  .map((part) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url'))
  .join('.')

describe('the certificate authority', () => {
  const put = (ca: TestCa, key = ca.key): Promise<void> =>
    applied({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'cacerts', namespace: 'ambit-system' },
      stringData: { ...ca.secretData(), 'ca-key.pem': key },
    })

  it('is made where there is none, and is the same after a restart', async () => {
    const before = await roots()
    await control.stop()
    control = await started()
    expect(await roots()).toBe(before)
    await sign(await agent())
  })

  it('that people bring takes over: first everybody trusts it, then it signs; nobody is refused meanwhile', async () => {
    const made = await roots()
    const connection = await agent()
    const brought = new TestCa(folder, 'root', { key: RSA }).intermediate('issuing', { key: RSA })
    await put(brought)
    const signers: string[] = []
    await eventually(
      'it signs',
      async () => {
        // Each of these is a request that must not fail.
        const chain = await sign(connection)
        signers.push(new X509Certificate(chain[0]!).issuer)
        return signers.at(-1)?.includes('CN=issuing')
      },
      20_000,
    )
    expect(signers.length).toBeGreaterThan(1)
    expect(splitPem(await roots()).sort()).toEqual([...splitPem(made), ...splitPem(brought.root.certificate)].sort())
    // Control's own certificate is of the new one, and who starts now believes it.
    await sign(await agent())
  })

  it('keeps trusting the one before over a restart of control', async () => {
    const both = splitPem(await roots()).sort()
    expect(both).toHaveLength(2)
    await control.stop()
    control = await started()
    await sign(await agent())
    expect(splitPem(await roots()).sort()).toEqual(both)
  })

  it('whose key is another’s is refused by name, and the one before goes on', async () => {
    const broken = new TestCa(folder, 'broken')
    await put(broken, new TestCa(folder, 'other').key)
    await eventually('it is told', async () => {
      const events = await ok(['get', 'events', '-n', 'ambit-system', '-o', 'jsonpath={.items[*].message}'])
      return events.includes('cacerts') && events.includes('the key does not belong to the certificate')
    })
    const [leaf] = await sign(await agent())
    expect(new X509Certificate(leaf!).issuer).toContain('CN=issuing')
  })
})
