// The command as a person runs it, against a real admin server that answers as agents do (node/observe/status.ts).
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { openAdmin, statusRoutes, type AdminServer } from '../../telemetry/admin.ts'
import { localPrograms } from '../mesh/local.ts'
import { main } from '../main.ts'
import { testTerminal } from '../samples.ts'

const web = {
  namespace: 'shop',
  name: 'web-1',
  uid: 'a',
  addresses: ['10.1.0.5'],
  phase: 'captured',
  reason: 'Workload web-1 is enrolled.',
  protected: true,
  provedSeconds: 2.4,
  problem: '',
  repairs: 0,
  plaintext: 'refuse',
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  connections: 3,
  tunnels: 1,
}
const plain = {
  namespace: 'tools',
  name: 'cron',
  uid: 'b',
  addresses: ['10.1.0.6'],
  phase: 'out',
  reason: 'Namespace tools is not enrolled.',
}
const report = {
  version: '0.1.0',
  node: 'node-1',
  leads: true,
  control: { connected: true },
  kernel: { name: 'full', lacks: [], tablesSynced: true },
  kubelet: { state: 'exempt', cgroup: '/sys/fs/cgroup/kubelet.service', detail: 'Process 7.' },
  pods: [web, plain] as object[],
}

describe('ambit status', () => {
  let folder: string
  const servers: AdminServer[] = []

  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-status-'))))
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.close()
    rmSync(folder, { recursive: true })
  })

  async function agent(answer: object, listen = `unix:${join(folder, `${servers.length}.sock`)}`): Promise<string> {
    const server = await openAdmin({ listen, routes: statusRoutes(() => answer), localOnly: true, log: silentLog })
    servers.push(server)
    return server.address
  }

  const run = async (...args: string[]) => {
    const terminal = testTerminal('')
    const code = await main(['status', ...args], terminal)
    return { code, out: terminal.text, err: terminal.errors }
  }

  it('shows the node, and each pod in a line of aligned columns', async () => {
    const { code, out } = await run('--agent', await agent(report))
    expect(out).toBe(
      [
        'node-1  ambit 0.1.0',
        '  pods     2 pods, 2 as they should be',
        '  kernel   full',
        '  control  connected',
        '  kubelet  its probes pass (/sys/fs/cgroup/kubelet.service)',
        '',
        'NAMESPACE   POD     STATE       PROVED   PLAINTEXT   CONNECTIONS   REPAIRS   IDENTITY',
        'shop        web-1   protected   2s ago   refused     3             0         spiffe://cluster.local/ns/shop/sa/web',
        'tools       cron    out         -        -           -             -         -',
        '',
      ].join('\n'),
    )
    expect(code).toBe(0)
  })

  it('says what is wrong with a pod, and exits 1', async () => {
    const problem = 'the outbound canary over IPv4 failed: nothing arrived within 2000 ms'
    const broken = { ...web, protected: false, provedSeconds: 640, problem, plaintext: 'judge', repairs: 4 }
    const waiting = { ...plain, phase: 'pending', reason: 'It cannot be captured: no memory.' }
    const { code, out } = await run('--agent', await agent({ ...report, pods: [broken, waiting] }))
    expect(code).toBe(1)
    expect(out).toContain('2 pods, 0 as they should be')
    expect(out).toMatch(/^shop +web-1 +not proved +11m ago +judged +3 +4 /m)
    expect(out).toContain(`\n  shop/web-1: ${problem}\n  tools/cron: It cannot be captured: no memory.\n`)
  })

  it('says which rung the kernel stands on, and what that means', async () => {
    const lacks = [
      { feature: 'link:tcx', lacking: 'the guard' },
      { feature: 'kfunc:bpf_sock_destroy', lacking: 'the end of open connections' },
    ]
    const { out } = await run(
      '--agent',
      await agent({
        ...report,
        leads: false,
        control: { connected: false },
        kernel: { name: 'no_sock_destroy', lacks, tablesSynced: false },
        kubelet: { state: 'shared', cgroup: '/k3s.service', detail: 'Process 7 shares it with containerd (8).' },
        pods: [],
      }),
    )
    expect(out).toBe(
      [
        'node-1  ambit 0.1.0',
        '  agent    a newer one has taken over; this one ends what it carries',
        '  pods     0 pods, 0 as they should be',
        '  kernel   no_sock_destroy: without the guard (link:tcx); without the end of open connections (kfunc:bpf_sock_destroy); its tables are not in force, everything goes through the agent',
        '  control  away: the last good state is in force',
        '  kubelet  shared: Process 7 shares it with containerd (8).',
        '',
      ].join('\n'),
    )
  })

  it('asks several agents, over TCP too, and tells which cannot be asked', async () => {
    const one = await agent(report, '127.0.0.1:0')
    const gone = `unix:${join(folder, 'gone.sock')}`
    const { code, out } = await run('--agent', one, '--agent', gone)
    expect(code).toBe(1)
    expect(out).toContain('node-1  ambit 0.1.0')
    expect(out).toMatch(new RegExp(`${gone}\\n  unreachable  The agent at ${gone} cannot be asked: .*ENOENT`))
  })

  it('gives the same as JSON and YAML', async () => {
    const address = await agent(report)
    const json = await run('--agent', address, '-o', 'json')
    expect(JSON.parse(json.out)).toEqual({ agents: [{ address, status: report }] })
    expect((await run('--agent', address, '-o', 'yaml')).out).toContain('    provedSeconds: 2.4\n'.trimStart())
  })

  it('refuses what is no address, no format, and no agent', async () => {
    expect(await run('--agent', 'nonsense')).toMatchObject({
      code: 2,
      err: expect.stringContaining('CLI_AGENT_ADDRESS') as string,
    })
    expect(await run('--agent', await agent(report), '-o', 'xml')).toMatchObject({ code: 2 })
    expect((await run('--name', 'no-such-sandbox')).err).toContain('CLI_NO_AGENT')
  })

  it('is not misled by another program at the address', async () => {
    const path = join(folder, 'other.sock')
    const other = createServer((socket) => socket.end('HTTP/1.0 404 No\r\ncontent-length: 0\r\n\r\n'))
    await new Promise<void>((resolve) => other.listen(path, resolve))
    expect((await run('--agent', `unix:${path}`)).out).toContain('it answers /status with status 404')
    other.close()
  })

  it('finds the agent of this node and those of the sandboxes, in the order of their names', async () => {
    for (const path of ['one/nodes/node-10', 'one/nodes/node-2', 'two/nodes/node-1']) {
      mkdirSync(join(folder, path), { recursive: true })
      await agent(report, `unix:${join(folder, path, 'admin.sock')}`)
    }
    await agent(report, `unix:${join(folder, 'admin.sock')}`)
    const at = (path: string): string => `unix:${join(folder, path)}`
    const addresses = (name?: string, root = folder): string[] => localPrograms(name, root).map((one) => one.address)
    expect(addresses()).toEqual([
      at('admin.sock'),
      at('one/nodes/node-2/admin.sock'),
      at('one/nodes/node-10/admin.sock'),
      at('two/nodes/node-1/admin.sock'),
    ])
    expect(addresses('two')).toEqual([at('two/nodes/node-1/admin.sock')])
    expect(addresses(undefined, join(folder, 'nothing'))).toEqual([])
  })
})
