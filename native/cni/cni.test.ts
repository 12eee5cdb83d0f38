// The CNI plugin called as a runtime calls it, against a server that speaks the agent's local API and misbehaves where an agent
// would not. Every test runs on the program as it is shipped and on one under AddressSanitizer. With a real agent and real
// plugins before it: test/kernel/cni.test.ts.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { FakeAgent, HANG_UP, SILENCE, callPlugin, pluginProgram, type Build, type Result } from './test/plugin.ts'

const environment = {
  CNI_CONTAINERID: 'c0ffee',
  CNI_NETNS: '/run/netns/cni-1',
  CNI_IFNAME: 'eth0',
  CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=1-2',
  CNI_PATH: '/opt/cni/bin',
}
const podArgs = (namespace: string): string => `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=web-0;K8S_POD_UID=1-2`
const previous = {
  cniVersion: '1.0.0',
  interfaces: [
    { name: 'veth1', mac: 'aa:00:00:00:00:01' },
    { name: 'eth0', sandbox: '/run/netns/cni-1' },
  ],
  ips: [
    { interface: 1, address: '10.1.0.5/24', gateway: '10.1.0.1' },
    { interface: 0, address: '10.1.0.1/24' },
    { interface: 1, address: 'fd00:1::5/64' },
  ],
}
const captured = { ok: true, phase: 'captured', enrolled: true }

describe.each<Build>(['release', 'asan'])('the CNI plugin (%s)', (build) => {
  let program: string
  let agent: FakeAgent
  beforeAll(() => {
    program = pluginProgram(build)
  }, 120_000)
  beforeEach(() => {
    agent = new FakeAgent()
    agent.reactions = [captured]
  })
  afterEach(() => agent.close())

  const entry = (change: object = {}): Record<string, unknown> => ({
    cniVersion: '1.0.0',
    name: 'net',
    type: 'ambit-cni',
    socket: agent.path,
    prevResult: previous,
    ...change,
  })
  const call = (command: string, change: object = {}, env: object = {}): Promise<Result> =>
    callPlugin(program, command, {
      input: JSON.stringify(entry(change)),
      environment: { ...environment, ...env },
    })
  /** It failed by itself, not by a signal or a sanitizer, with this code. */
  const refusedWith = (result: Result, code: number): void => {
    expect({ exit: result.code, stderr: result.stderr }).toEqual({ exit: 1, stderr: '' })
    expect(result.error).toMatchObject({ code, msg: expect.any(String) as string })
  }
  const succeeded = (result: Result, stdout = ''): void => {
    expect(result).toMatchObject({ code: 0, signal: null, stdout, stderr: '' })
  }

  it('tells which versions it serves', async () => {
    const supportedVersions = ['1.1.0', '1.0.0', '0.4.0', '0.3.1', '0.3.0']
    const { stdout, code } = await callPlugin(program, 'VERSION', { input: '{"cniVersion":"0.4.0"}' })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toEqual({ cniVersion: '0.4.0', supportedVersions })
    const bare = await callPlugin(program, 'VERSION')
    expect(JSON.parse(bare.stdout)).toEqual({ cniVersion: '1.1.0', supportedVersions })
  })

  it('tells the agent of a new pod, and answers with the result before, byte for byte', async () => {
    await agent.listen()
    const result = `{ "cniVersion":"1.0.0",\n\t"ips":[{"address":"10.1.0.5/24"}], "x": [1e400, 0.10, "\\u00e9é\\/"], "b":{}, "a":null}`
    const input = `{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","socket":"${agent.path}","prevResult":  ${result} , "z":1}`
    succeeded(await callPlugin(program, 'ADD', { input, environment }), `${result}\n`)
    expect(agent.asked).toEqual([
      {
        op: 'add',
        uid: '1-2',
        sandbox: 'c0ffee',
        namespace: 'shop',
        name: 'web-0',
        netns: '/run/netns/cni-1',
        addresses: ['10.1.0.5'],
      },
    ])
  })

  it('takes the addresses of interfaces inside the container', async () => {
    await agent.listen()
    succeeded(await call('ADD'), `${JSON.stringify(previous)}\n`)
    expect(agent.asked[0]).toMatchObject({ addresses: ['10.1.0.5', 'fd00:1::5'] })
  })

  it('serves every version from 0.3.0 on, and no other', async () => {
    await agent.listen()
    for (const cniVersion of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      succeeded(await call('ADD', { cniVersion }), `${JSON.stringify(previous)}\n`)
    }
    for (const cniVersion of ['0.2.0', '1.2.0', '2.0.0', '', 5, null, 'x'.repeat(300)]) {
      refusedWith(await call('ADD', { cniVersion }), 1)
    }
  })

  it('lets a pod go on that stays out of the mesh', async () => {
    agent.reactions = [{ ok: true, phase: 'out', enrolled: false }]
    await agent.listen()
    expect((await call('ADD')).code).toBe(0)
  })

  it('names the container where the runtime tells no uid', async () => {
    await agent.listen()
    const CNI_ARGS = 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0'
    expect((await call('ADD', {}, { CNI_ARGS })).code).toBe(0)
    expect(agent.asked[0]).toMatchObject({ uid: 'c0ffee', sandbox: 'c0ffee' })
  })

  it('refuses with `try again later` while the agent is away', async () => {
    const result = await call('ADD')
    refusedWith(result, 11)
    expect(result.error.msg).toContain(agent.path)
    expect(result.error.cniVersion).toBe('1.0.0')
    // It gave an agent that is restarted the time to come back, and no more.
    expect(result.milliseconds).toBeGreaterThan(1_900)
    expect(result.milliseconds).toBeLessThan(6_000)
  })

  it('waits for an agent that comes back at once', async () => {
    const adding = call('ADD')
    await new Promise((resolve) => setTimeout(resolve, 300))
    await agent.listen()
    expect((await adding).code).toBe(0)
  })

  it('passes pods of exempt namespaces by itself', async () => {
    const add = (namespace: string, change: object = {}): Promise<Result> =>
      call('ADD', { timeoutSeconds: 1, ...change }, { CNI_ARGS: podArgs(namespace) })
    for (const namespace of ['ambit-system', 'kube-system']) expect((await add(namespace)).code).toBe(0)
    const exemptNamespaces = ['own', 'mesh']
    expect((await add('own', { exemptNamespaces })).code).toBe(0)
    expect((await add('mesh', { exemptNamespaces })).code).toBe(0)
    refusedWith(await add('kube-system', { exemptNamespaces }), 11)
    refusedWith(await add('kube-system', { exemptNamespaces: [] }), 11)
    refusedWith(await add('own-too', { exemptNamespaces }), 11)
    for (const wrong of ['own', { own: 1 }, [1], [''], [null], ['x'.repeat(300)], null]) {
      refusedWith(await add('own', { exemptNamespaces: wrong }), 7)
    }
  })

  it('passes containers that are no pods', async () => {
    succeeded(await call('ADD', {}, { CNI_ARGS: undefined }), `${JSON.stringify(previous)}\n`)
    succeeded(await call('CHECK', {}, { CNI_ARGS: 'IgnoreUnknown=1' }))
  })

  it.each([
    ['ENROLL_NO_STATE', 11],
    ['ENROLL_FAILED', 11],
    ['ENROLL_TIMEOUT', 11],
    ['ENROLL_BAD_REQUEST', 100],
    ['ENROLL_NO_NAMESPACE', 100],
    ['SOMETHING_NEW', 100],
  ])('passes on the refusal %s as %i', async (code, cni) => {
    agent.reactions = [{ ok: false, code, message: 'No "such" thing.\n', hint: 'Do it.' }]
    await agent.listen()
    const result = await call('ADD')
    refusedWith(result, cni)
    expect(result.error).toMatchObject({ msg: 'No "such" thing.\n', details: `${code}: Do it.` })
  })

  it('asks again when another agent has taken over, or the agent ends or is full', async () => {
    agent.reactions = [{ ok: false, code: 'ENROLL_SUPERSEDED', message: 'x' }, HANG_UP, HANG_UP, captured]
    await agent.listen()
    expect((await call('ADD')).code).toBe(0)
    expect(agent.asked).toHaveLength(4)
  })

  it('lets no pod go on for an answer that it does not know', async () => {
    await agent.listen()
    for (const reaction of [
      { ok: true },
      { ok: true, phase: 'pending' },
      { ok: true, phase: ['captured'] },
      { ok: true, phase: 'captured\0' },
      { ok: 'no', phase: 'captured' },
      { ok: false },
      {},
      '[]\n',
      'yes\n',
      '\n',
      '{"ok":true,"phase":"captured","phase":"captured"}\n',
      `${'x'.repeat(70_000)}`,
      `{"ok":true,"phase":"captured"`,
    ]) {
      agent.reactions = [reaction]
      const result = await call('ADD', { timeoutSeconds: 1 })
      expect({ reaction, exit: result.code, stderr: result.stderr }).toEqual({ reaction, exit: 1, stderr: '' })
      expect([11, 100]).toContain(result.error.code)
    }
  })

  it('waits for a slow agent as long as its entry says', async () => {
    agent.reactions = [SILENCE]
    await agent.listen()
    const result = await call('ADD', { timeoutSeconds: 1 })
    refusedWith(result, 11)
    expect(result.milliseconds).toBeGreaterThan(990)
    expect(result.milliseconds).toBeLessThan(4_000)
    for (const timeoutSeconds of [0, 61, -1, 1.5, '5', null]) refusedWith(await call('ADD', { timeoutSeconds }), 7)
  })

  it('checks', async () => {
    agent.reactions = [captured, { ok: true, phase: 'out' }, { ok: true, phase: 'pending' }]
    await agent.listen()
    succeeded(await call('CHECK'))
    expect(agent.asked[0]).toEqual({ op: 'check', uid: '1-2', sandbox: 'c0ffee' })
    succeeded(await call('CHECK'))
    refusedWith(await call('CHECK'), 101)
    agent.reactions = [{ ok: false, code: 'ENROLL_UNKNOWN_POD', message: 'Who?' }]
    refusedWith(await call('CHECK'), 101)
    succeeded(await call('CHECK', {}, { CNI_ARGS: podArgs('kube-system') }))
  })

  it('ends pods, whatever happens', async () => {
    agent.reactions = [
      { ok: true, removed: true },
      { ok: true, removed: false },
      { ok: false, code: 'X' },
    ]
    await agent.listen()
    for (let i = 0; i < 3; i++) succeeded(await call('DEL', {}, { CNI_NETNS: '' }))
    expect(agent.asked).toEqual(Array.from({ length: 3 }, () => ({ op: 'del', uid: '1-2', sandbox: 'c0ffee' })))
    succeeded(await call('DEL', { prevResult: undefined }))
    succeeded(await callPlugin(program, 'DEL', { input: 'garbage', environment }))
    succeeded(await callPlugin(program, 'DEL'))
    succeeded(await call('DEL', { socket: '/nowhere/agent.sock' }))
    agent.reactions = [SILENCE]
    const slow = await call('DEL')
    succeeded(slow)
    expect(slow.milliseconds).toBeLessThan(4_000)
  })

  it('has the agent look for what is gone', async () => {
    agent.reactions = [{ ok: true }]
    const attachments = { 'cni.dev/valid-attachments': [{ containerID: 'c0ffee', ifname: 'eth0' }] }
    succeeded(await call('GC', attachments))
    await agent.listen()
    succeeded(
      await call('GC', attachments, { CNI_CONTAINERID: undefined, CNI_NETNS: undefined, CNI_IFNAME: undefined }),
    )
    expect(agent.asked).toEqual([{ op: 'sweep' }])
  })

  it('can be used while the agent is away, since the agent is a pod that has to start', async () => {
    const status = (input: string): Promise<Result> => callPlugin(program, 'STATUS', { input })
    succeeded(await status(JSON.stringify(entry())))
    agent.reactions = [SILENCE]
    await agent.listen()
    succeeded(await status(JSON.stringify(entry())))
    expect(agent.asked).toEqual([])
    refusedWith(await status('{"cniVersion":"1.1.0"}'), 7)
  })

  it.each([
    ['', 6],
    ['garbage', 6],
    ['[]', 6],
    ['"x"', 6],
    ['{"cniVersion":"1.0.0"', 6],
    ['{"cniVersion":"1.0.0"} x', 6],
    ['{"cniVersion":"1.0.0",}', 6],
    ['\u{feff}{"cniVersion":"1.0.0"}', 6],
    ['{}', 1],
    ['{"cniVersion":"1.0.0","cniVersion":"1.0.0"}', 1],
    ['{"cniVersion":"1.0.0"}', 7],
    ['{"cniVersion":"1.0.0","socket":"relative"}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a\\u0000b"}', 7],
    [`{"cniVersion":"1.0.0","socket":"/${'x'.repeat(200)}"}`, 7],
    ['{"cniVersion":"1.0.0","socket":"/a","\\u0073ocket":"/b"}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a"}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":null}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":[]}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":{}}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":[{}]}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":[{"address":5}]}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":[{"address":"x/8"}]}}', 7],
    ['{"cniVersion":"1.0.0","socket":"/a","prevResult":{"ips":[{"address":"/8"}]}}', 7],
    [`{"cniVersion":"1.0.0","socket":"/a","x":${'['.repeat(65)}${']'.repeat(65)}}`, 6],
    [`{"cniVersion":"1.0.0","socket":"/a","x":${'['.repeat(200_000)}`, 6],
  ])('refuses the configuration %.60s', async (input, code) => {
    refusedWith(await callPlugin(program, 'ADD', { input, environment }), code)
  })

  it('refuses bytes that are no UTF-8, and too many addresses', async () => {
    const bad = Buffer.concat([
      Buffer.from('{"cniVersion":"1.0.0","x":"'),
      Buffer.from([0xc0, 0xaf]),
      Buffer.from('"}'),
    ])
    refusedWith(await callPlugin(program, 'ADD', { input: bad, environment }), 6)
    const ips = Array.from({ length: 17 }, (_, i) => ({ address: `10.0.0.${i}/8` }))
    refusedWith(await call('ADD', { prevResult: { ips } }), 7)
  })

  it.each<[string, object]>([
    ['CNI_CONTAINERID', { CNI_CONTAINERID: undefined }],
    ['CNI_CONTAINERID', { CNI_CONTAINERID: '../x' }],
    ['CNI_CONTAINERID', { CNI_CONTAINERID: 'x'.repeat(300) }],
    ['CNI_NETNS', { CNI_NETNS: '' }],
    ['CNI_NETNS', { CNI_NETNS: 'relative' }],
    ['CNI_NETNS', { CNI_NETNS: `/${'x'.repeat(5_000)}` }],
    ['CNI_IFNAME', { CNI_IFNAME: undefined }],
    ['CNI_IFNAME', { CNI_IFNAME: 'a/b' }],
    ['CNI_IFNAME', { CNI_IFNAME: '..' }],
    ['CNI_IFNAME', { CNI_IFNAME: 'x'.repeat(16) }],
    ['CNI_ARGS', { CNI_ARGS: 'K8S_POD_NAMESPACE=shop' }],
    ['CNI_ARGS', { CNI_ARGS: 'K8S_POD_NAME=web' }],
    ['CNI_ARGS', { CNI_ARGS: `${podArgs('shop')};rubbish` }],
    ['CNI_ARGS', { CNI_ARGS: `${podArgs('shop')};${podArgs('kube-system')}` }],
    ['CNI_ARGS', { CNI_ARGS: podArgs('kube-system\n') }],
    ['CNI_ARGS', { CNI_ARGS: podArgs('') }],
    ['CNI_ARGS', { CNI_ARGS: podArgs('x'.repeat(254)) }],
    ['CNI_ARGS', { CNI_ARGS: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=a b' }],
  ])('refuses an environment with a wrong %s (%#)', async (name, change) => {
    const result = await call('ADD', {}, change)
    refusedWith(result, 4)
    expect(result.error.msg).toContain(name)
  })

  it('refuses commands that there are not', async () => {
    for (const command of ['', 'add', 'FLY']) refusedWith(await call(command), 4)
  })

  it('carries long results, and refuses ones that are too long', async () => {
    await agent.listen()
    const routes = Array.from({ length: 15_000 }, (_, i) => ({ dst: `10.${i >> 8}.${i & 255}.0/24`, gw: '10.1.0.1' }))
    const prevResult = { ...previous, routes }
    succeeded(await call('ADD', { prevResult }), `${JSON.stringify(prevResult)}\n`)
    refusedWith(await call('ADD', { prevResult: { ...previous, x: 'x'.repeat(1 << 20) } }), 6)
  })

  it('escapes what it passes on', async () => {
    await agent.listen()
    expect((await call('ADD', {}, { CNI_NETNS: '/run/"netns"\\\n\u{1f600}/x' })).code).toBe(0)
    expect(agent.asked[0]).toMatchObject({ netns: '/run/"netns"\\\n\u{1f600}/x' })
  })

  it('does not wait for ever for its input', async () => {
    const result = await callPlugin(program, 'ADD', { input: '{"cniVersion":"1.0.0",', open: true, environment })
    refusedWith(result, 5)
    expect(result.milliseconds).toBeLessThan(9_000)
  })

  it.runIf(process.getuid?.() === 0)('believes no server of another user', async () => {
    // It binds as root, so that it may, and listens as nobody: the kernel notes who listens.
    const script = `import socket,os,sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
os.setresuid(65534, 65534, 65534)
s.listen()
print('listens', flush=True)
c, _ = s.accept()
c.sendall(b'{"ok":true,"phase":"captured"}\\n')
sys.stdin.read()`
    const server = spawn('/usr/bin/python3', ['-c', script, agent.path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    try {
      await once(server.stdout, 'data')
      const result = await call('ADD')
      refusedWith(result, 11)
      expect(result.error.msg).toContain('not the agent')
    } finally {
      server.kill('SIGKILL')
    }
  })
})
