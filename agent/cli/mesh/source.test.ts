import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AS_PLUGIN, clusterOf, findProgram, openSource, type Program } from './source.ts'

const flags = { systemNamespace: 'ambit-system' }

describe('where the mesh is', () => {
  let folder: string
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-source-'))))
  afterEach(() => rmSync(folder, { recursive: true }))
  const put = (path: string): string => {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), '')
    return join(folder, path)
  }
  const environment = (more: object = {}) => ({ HOME: folder, ...more })

  it('is the cluster that is named, whatever runs here', () => {
    const here = (): boolean => true
    expect(clusterOf({ ...flags, context: 'prod' }, here, { environment: environment() })).toBeDefined()
    expect(clusterOf({ ...flags, kubeconfig: 'x' }, here, { environment: environment() })).toBeDefined()
    expect(clusterOf(flags, here, { environment: environment({ KUBECONFIG: 'x' }) })).toBeDefined()
    expect(clusterOf(flags, here, { environment: environment({ [AS_PLUGIN]: '1' }) })).toBeDefined()
    expect(clusterOf(flags, here, { environment: environment() })).toBeUndefined()
  })

  it('is the cluster of the usual kubeconfig only where nothing runs here', () => {
    put('.kube/config')
    expect(clusterOf(flags, () => true, { environment: environment() })).toBeUndefined()
    expect(clusterOf(flags, () => false, { environment: environment() })).toEqual(flags)
    expect(clusterOf(flags, () => false, { environment: { HOME: join(folder, 'other') } })).toBeUndefined()
  })

  it('is a sandbox by its name, which may be a cluster', () => {
    const place = { runRoot: folder, environment: environment({ KUBECONFIG: 'of another' }) }
    const kubeconfig = put('k8s/kubeconfig')
    expect(clusterOf({ ...flags, name: 'k8s' }, () => true, place)).toMatchObject({ kubeconfig })
    expect(clusterOf({ ...flags, name: 'plain' }, () => true, place)).toBeUndefined()
  })

  it('is what runs on this machine, or nowhere', async () => {
    const place = { runRoot: folder, environment: environment() }
    await expect(openSource(flags, [], place)).rejects.toMatchObject({ code: 'CLI_NO_AGENT' })
    put('sbx/nodes/node-1/admin.sock')
    put('sbx/control-admin.sock')
    const source = await openSource(flags, [], place)
    expect((await source.programs()).map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      'control control',
      'agent node-1',
    ])
  })
})

describe('the program that is meant', () => {
  const of = (kind: Program['kind'], name: string, pod: string, problem?: string): Program => ({
    kind,
    name,
    also: [pod, `pod/${pod}`],
    address: `pod/${pod}`,
    ...(problem === undefined ? {} : { problem }),
    ask: () => Promise.resolve({}),
  })
  const programs = [
    of('control', 'ambit-control-a', 'ambit-control-a', 'CrashLoopBackOff'),
    of('control', 'ambit-control-b', 'ambit-control-b'),
    of('agent', 'node-1', 'ambit-agent-x', 'it is Pending'),
    of('agent', 'node-1', 'ambit-agent-y'),
    of('agent', 'edge', 'ambit-agent-z'),
    of('waypoint', 'shop/edge', 'edge-1'),
    of('waypoint', 'pay/wp', 'wp-1', 'ImagePullBackOff'),
  ]
  const find = (words: string, namespace?: string): string => findProgram(programs, words, namespace).address

  it('is found by node, gateway, pod, and the one of its kind that can be asked', () => {
    expect(find('node-1')).toBe('pod/ambit-agent-y')
    expect(find('control')).toBe('pod/ambit-control-b')
    expect(find('shop/edge')).toBe('pod/edge-1')
    expect(find('pod/ambit-agent-z')).toBe('pod/ambit-agent-z')
    expect(find('node/edge')).toBe('pod/ambit-agent-z')
    expect(find('waypoint/edge', 'shop')).toBe('pod/edge-1')
    expect(find('waypoint/shop/edge')).toBe('pod/edge-1')
  })

  it('is not guessed', () => {
    expect(() => find('edge')).toThrow(/agent edge or waypoint shop\/edge/)
    expect(() => find('none')).toThrow(/There is no none/)
    expect(() => find('wp')).toThrow(/ImagePullBackOff/)
  })
})
