import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { connect } from './connection.ts'

let folder: string
const clock = new ManualClock()
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'ambit-kube-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const write = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

const kubeconfig = (user: unknown, more: object = {}): string =>
  write(
    'config',
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        { name: 'c', cluster: { server: 'https://10.0.0.1:6443/prefix', 'certificate-authority-data': 'Y2E=' } },
      ],
      users: [{ name: 'u', user }],
      contexts: [
        { name: 'one', context: { cluster: 'c', user: 'u', namespace: 'shop' } },
        { name: 'lost', context: { cluster: 'gone', user: 'u' } },
      ],
      'current-context': 'one',
      ...more,
    }),
  )

describe('where the API server is', () => {
  it('stands in the files of a pod, whose token is read again every minute and when it was refused', async () => {
    write('token', 'first\n')
    write('ca.crt', 'CA')
    write('namespace', 'ambit-system')
    const environment = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' }
    const connection = await connect({ serviceAccountDir: folder, environment, clock })
    expect(connection.server.href).toBe('https://[fd00::1]/')
    expect(connection.namespace).toBe('ambit-system')
    const token = async (): Promise<string | undefined> => (await connection.credentials()).headers['authorization']
    expect(await token()).toBe('Bearer first')
    write('token', 'second')
    expect(await token()).toBe('Bearer first')
    clock.advance(60_001)
    expect(await token()).toBe('Bearer second')
    write('token', 'third')
    connection.refused()
    expect(await token()).toBe('Bearer third')
    rmSync(join(folder, 'token'))
    connection.refused()
    expect(await token()).toBe('Bearer third')
  })

  it('stands in a kubeconfig, with a client certificate', async () => {
    const file = kubeconfig({ 'client-certificate-data': 'Y2VydA==', 'client-key-data': 'a2V5' })
    const connection = await connect({ kubeconfig: file })
    expect(connection.server.href).toBe('https://10.0.0.1:6443/prefix')
    expect(connection.namespace).toBe('shop')
    const { tls, headers } = await connection.credentials()
    expect(Object.entries(tls).map(([name, value]) => `${name}: ${String(value)}`)).toEqual([
      'ca: ca',
      'cert: cert',
      'key: key',
    ])
    expect(headers).toEqual({})
  })

  it('may be shown a token of a file, which is read again, or a password', async () => {
    const tokenFile = write('token', 'first')
    const connection = await connect({ kubeconfig: kubeconfig({ tokenFile }), clock })
    const header = async (): Promise<string | undefined> => (await connection.credentials()).headers['authorization']
    expect(await header()).toBe('Bearer first')
    write('token', 'second')
    clock.advance(60_001)
    expect(await header()).toBe('Bearer second')
    const basic = await connect({ kubeconfig: kubeconfig({ username: 'a', password: 'b' }) })
    expect((await basic.credentials()).headers['authorization']).toBe(`Basic ${Buffer.from('a:b').toString('base64')}`)
  })

  it('may be shown what a plugin prints, which is started once and not for every request', async () => {
    const script = write(
      'plugin.sh',
      `echo x >>${folder}/calls; echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"of-plugin","expirationTimestamp":"2999-01-01T00:00:00Z"}}'`,
    )
    const exec = {
      apiVersion: 'client.authentication.k8s.io/v1',
      command: 'sh',
      args: [script],
      interactiveMode: 'Never',
    }
    const connection = await connect({ kubeconfig: kubeconfig({ exec }), clock })
    for (let at = 0; at < 3; at++) {
      expect((await connection.credentials()).headers['authorization']).toBe('Bearer of-plugin')
      clock.advance(120_000)
    }
    expect(readFileSync(join(folder, 'calls'), 'utf8')).toBe('x\n')
  })

  it('is refused by name when nothing says it, or what says it is of no use', async () => {
    await expect(connect({ environment: { HOME: folder } })).rejects.toMatchObject({ code: 'KUBE_NO_CLUSTER' })
    await expect(connect({ kubeconfig: write('bad', 'clusters: [') })).rejects.toMatchObject({
      code: 'KUBE_CONFIG_INVALID',
    })
    const file = kubeconfig({ token: 't' })
    await expect(connect({ kubeconfig: file, context: 'lost' })).rejects.toMatchObject({ code: 'KUBE_CONFIG_INVALID' })
    await expect(connect({ kubeconfig: file, context: 'nobody' })).rejects.toMatchObject({
      code: 'KUBE_CONFIG_INVALID',
      hint: 'Contexts: one, lost.',
    })
  })

  it('loads the Kubernetes client only for a kubeconfig', () => {
    write('token', 't')
    write('ca.crt', 'CA')
    const script = `
      const { registerHooks } = await import('node:module')
      const loaded = new Set()
      registerHooks({ resolve: (name, context, next) => (loaded.add(name), next(name, context)) })
      const { connect } = await import('${new URL('connection.ts', import.meta.url).href}')
      const isLoaded = () => loaded.has('@kubernetes/client-node')
      await connect({ serviceAccountDir: '${folder}', environment: { KUBERNETES_SERVICE_HOST: '10.0.0.1' } })
      console.log(isLoaded())
      await connect({ kubeconfig: '${kubeconfig({ token: 't' })}' })
      console.log(isLoaded())`
    const out = execFileSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script],
      { encoding: 'utf8' },
    )
    expect(out).toBe('false\ntrue\n')
  })
})
