// What control does while the API server is away, cut off, killed, or shared with another replica. Real processes; the way to
// the server goes through a relay that the test can close.
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as dial, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { parse } from 'yaml'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../agent/base/clock.ts'
import { silentLog } from '../../../agent/base/log.ts'
import { KubeClient } from '../../../agent/kube/client.ts'
import { connect } from '../../../agent/kube/connection.ts'
import { MeshState } from '../../../agent/mesh/state.ts'
import { connectControl } from '../../../agent/wire/connect-control.ts'
import { agentKinds, type ControlConnection } from '../../../agent/wire/contract.ts'
import { startControl, type ControlProcess } from '../../world/control-process.ts'
import { agentToken, makeAgentAccount, meshRoots, SYSTEM_NAMESPACE } from '../../world/kube-agents.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, root, uniqueName } from '../../world/sandbox.ts'

/** Bytes to and from the API server, as long as it is open. */
class Relay {
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  port = 0

  async open(target: URL): Promise<void> {
    this.#server = createServer((near) => {
      const far = dial({ host: target.hostname, port: Number(target.port) })
      for (const socket of [near, far]) {
        this.#sockets.add(socket)
        socket.on('error', () => undefined).on('close', () => (near.destroy(), far.destroy()))
      }
      near.pipe(far).pipe(near)
    })
    await new Promise<void>((resolve) => this.#server!.listen(this.port, '127.0.0.1', resolve))
    this.port = (this.#server.address() as { port: number }).port
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#sockets.clear()
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server?.close(resolve))
    this.cut()
    await closed
  }
}

let cluster: Cluster
let client: KubeClient
let api: URL
const relay = new Relay()
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  api = new URL(cluster.sandbox.layout.apiUrl)
  client = new KubeClient(await connect({ kubeconfig: cluster.sandbox.layout.kubeconfig }))
  await makeAgentAccount(client)
}, BUILD_MS)
afterAll(async () => {
  client?.close()
  await relay.close().catch(() => undefined)
  expect(await cluster?.close()).toEqual([])
})

const running: ControlProcess[] = []
const connections: ControlConnection[] = []
afterEach(async () => {
  await Promise.all(connections.splice(0).map((one) => one.close()))
  await Promise.all(running.splice(0).map((one) => one.stop()))
})

function start(flags: readonly string[] = [], kubeconfig = cluster.sandbox.layout.kubeconfig): ControlProcess {
  const control = startControl(kubeconfig, flags)
  running.push(control)
  return control
}
const isReady = async (control: ControlProcess): Promise<boolean> =>
  (await control.admin('/healthz/ready').catch(() => undefined))?.status === 200
const ready = (control: ControlProcess): Promise<unknown> =>
  eventually('control is ready', () => isReady(control), 30_000)

/** A kubeconfig by which the server is reached through the relay. */
function throughRelay(): string {
  const file = join(cluster.sandbox.layout.home, 'relay.kubeconfig')
  const config = parse(readFileSync(cluster.sandbox.layout.kubeconfig, 'utf8')) as {
    clusters: { cluster: Record<string, string> }[]
  }
  for (const { cluster: to } of config.clusters) {
    to['server'] = `https://127.0.0.1:${relay.port}`
    // The server's certificate does not speak of the relay.
    to['tls-server-name'] = 'kubernetes'
  }
  writeFileSync(file, JSON.stringify(config))
  return file
}

async function agentOf(control: ControlProcess, node: string): Promise<MeshState> {
  const rootCertFile = join(control.folder, 'roots.pem')
  const tokenFile = join(control.folder, 'token')
  writeFileSync(rootCertFile, await meshRoots(client))
  writeFileSync(tokenFile, await agentToken(client, node))
  const state = new MeshState()
  const { address } = (await control.dump()) as unknown as { address: string }
  const connection = await connectControl({
    address,
    rootCertFile,
    tokenFile,
    kinds: agentKinds,
    node: { type: 'agent', address: '', name: `ambit-agent-${node}`, namespace: SYSTEM_NAMESPACE, node },
    state,
    clock: systemClock,
    log: silentLog,
  })
  connections.push(connection)
  await connection.synced()
  return state
}

let services = 0
/** Makes a Service and waits until the agent knows it; milliseconds. */
async function seen(state: MeshState): Promise<number> {
  const name = `web-${++services}`
  const began = performance.now()
  await eventually(
    'the API server takes it',
    async () =>
      (await cluster.kubectl(['create', 'service', 'clusterip', name, '--tcp=80'])).code === 0 ||
      (await cluster.kubectl(['get', 'service', name])).code === 0,
    60_000,
  )
  await eventually('the agent knows it', () => [...state.services()].some((service) => service.name === name), 30_000)
  return performance.now() - began
}

const crd = (name: string): Promise<unknown> => cluster.kubectl(['apply', '-f', join(root, 'deploy/chart/crds', name)])
const apply = async (text: string): Promise<void> => {
  const { code, err } = await cluster.kubectl(['apply', '-f', '-'], text)
  if (code !== 0) throw new Error(err)
}
const policy = (name: string, action: string): string => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: default}
spec: {action: ${action}, selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {ports: ["80"]}}]}]}
`

describe('control without its API server', () => {
  it('starts, says that it waits, is not ready, and is when the server is there', async () => {
    await relay.open(api)
    await relay.close()
    const control = start([], throughRelay())
    await eventually('it says so', () => control.log().includes('KUBE_UNREACHABLE'), 20_000)
    expect(await isReady(control)).toBe(false)
    // Once for all kinds, not for each.
    expect(
      control
        .log()
        .split('\n')
        .filter((line) => line.includes('nothing new is heard')).length,
    ).toBe(1)
    await relay.open(api)
    await ready(control)
    expect(control.child.exitCode).toBeNull()
  })

  it('ends on SIGTERM while it still waits', async () => {
    await relay.close()
    const control = start([], throughRelay())
    await eventually('it says so', () => control.log().includes('KUBE_UNREACHABLE'), 20_000)
    await control.stop()
    expect(control.child.exitCode).toBe(0)
    await relay.open(api)
  })

  it('serves what it knows while its watches are cut and the server is not reached, and catches up', async () => {
    const control = start([], throughRelay())
    await ready(control)
    const state = await agentOf(control, 'n1')
    await seen(state)
    relay.cut()
    await seen(state)
    await relay.close()
    await cluster.kubectl(['create', 'service', 'clusterip', 'meanwhile', '--tcp=80'])
    await eventually('it is said', () => control.log().includes('what is known stays in force'), 20_000)
    expect(await isReady(control)).toBe(true)
    expect([...state.services()].some((service) => service.name === 'web-1')).toBe(true)
    await relay.open(api)
    await eventually('the agent knows', () => [...state.services()].some(({ name }) => name === 'meanwhile'), 30_000)
  })

  it('goes on over the deaths of the API server and of etcd', async () => {
    const control = start()
    await ready(control)
    const state = await agentOf(control, 'n1')
    await seen(state)
    const before = [...state.services()].map((service) => service.hostname).sort()
    let removed = false
    for (const name of ['kube-apiserver', 'etcd']) {
      process.kill(cluster.sandbox.status().programs.find((one) => one.name === name)!.pid!, 'SIGKILL')
      const watch = setInterval(() => {
        const now = new Set([...state.services()].map((service) => service.hostname))
        if (before.some((one) => !now.has(one))) removed = true
      }, 50)
      expect(await isReady(control)).toBe(true)
      await seen(state)
      clearInterval(watch)
    }
    expect(removed).toBe(false)
    expect(control.child.exitCode).toBeNull()
  })
})

describe('control and kinds', () => {
  it('takes up a kind that is installed later, and denies by what cannot be read of it', async () => {
    const control = start()
    await ready(control)
    const state = await agentOf(control, 'n1')
    await crd('authorizationpolicies.security.istio.io.yaml')
    await cluster.kubectl(['wait', '--for=condition=Established', 'crd', '--all'])
    await apply(policy('good', 'ALLOW'))
    await eventually('the policy is there', () => state.policy('default/good')?.action === 'ALLOW', 30_000)
    await apply(policy('good', 'NEVER'))
    await apply(policy('bad', 'NEVER'))
    await eventually('the bad one denies', () =>
      [...state.policies()].some((one) => one.name.includes('bad') && one.action === 'DENY'),
    )
    expect(state.policy('default/good')?.action).toBe('ALLOW')
    await cluster.kubectl(['delete', 'authorizationpolicy', '--all'])
    await eventually('both are gone', () => [...state.policies()].every(({ namespace }) => namespace !== 'default'))
  })
})

describe('two replicas', () => {
  it('both serve the same, one leads, and the other does when it is killed', async () => {
    const leader = start(['--replica', 'one'])
    await ready(leader)
    const holder = async (): Promise<string> => {
      const lease = ['get', 'lease', 'ambit-control-leader', '-n', SYSTEM_NAMESPACE]
      return (await cluster.kubectl([...lease, '-o', 'jsonpath={.spec.holderIdentity}'])).out
    }
    await eventually('one leads', async () => (await holder()) === 'one', 30_000)
    const other = start(['--replica', 'two'])
    await ready(other)
    const [mine, theirs] = await Promise.all([agentOf(leader, 'n1'), agentOf(other, 'n1')])
    await Promise.all([
      seen(mine),
      eventually('two knows', () => [...theirs.services()].some(({ name }) => name === `web-${services}`)),
    ])
    expect((await other.dump()).translation).toEqual((await leader.dump()).translation)
    expect(await holder()).toBe('one')
    const began = performance.now()
    leader.child.kill('SIGKILL')
    await seen(theirs)
    await eventually('two leads', async () => (await holder()) === 'two', 30_000)
    // A lease of 15 s, looked at every 2 to 2.4 s; the rest is the machine's.
    expect(performance.now() - began).toBeLessThan(22_000)
    // It writes, too.
    await cluster.kubectl(['create', 'namespace', 'after'])
    await eventually(
      'the roots are in the new namespace',
      async () => (await cluster.kubectl(['get', 'configmap', 'ambit-root-cert', '-n', 'after'])).code === 0,
    )
  })
})
