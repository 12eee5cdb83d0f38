// The commands as a person runs them, against real admin servers of control and of a program on one machine, that answer from
// what the wire's own store and client hold.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import {
  dumpRoutes,
  heldRoutes,
  jsonRoutes,
  openAdmin,
  statusRoutes,
  type AdminRoute,
  type AdminServer,
} from '../../telemetry/admin.ts'
import { agentKinds, type HeldResource, type ResourceKind } from '../../wire/contract.ts'
import { encodeResource, type EncodedResource } from '../../wire/encoded.ts'
import { AddressSchema } from '../../wire/gen/istio/workload/workload_pb.js'
import { bytesOf, heldAnswer, wantedAnswer } from '../../wire/inventory.ts'
import { ResourceStore } from '../../wire/resource-store.ts'
import { testTerminal } from '../samples.ts'
import { diff, dump, type ConfigDiff } from './config.ts'

function workload(name: string, hostname = ''): EncodedResource {
  const value = { uid: `c//Pod/shop/${name}`, name, namespace: 'shop', hostname }
  const bytes = toBinary(AddressSchema, create(AddressSchema, { type: { case: 'workload', value } }))
  return encodeResource('Address', value.uid, bytes)
}

describe('ambit config', () => {
  let folder: string
  const servers: AdminServer[] = []
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-config-'))))
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.close()
    rmSync(folder, { recursive: true })
  })

  async function serve(path: string, routes: Record<string, AdminRoute>): Promise<void> {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    servers.push(await openAdmin({ listen: `unix:${join(folder, path)}`, routes, localOnly: true, log: silentLog }))
  }

  /** Control with what `wanted` says, node-1 with what `holds` says. */
  async function mesh(
    wanted: readonly EncodedResource[],
    holds: readonly EncodedResource[],
    control: { connected: boolean; rejected: readonly { name: string; reason: string }[] } = {
      connected: true,
      rejected: [],
    },
  ): Promise<void> {
    const store = new ResourceStore()
    store.update({ set: wanted, remove: [] })
    const scope = { kinds: agentKinds, version: () => 0, includes: () => true }
    await serve('sbx/control-admin.sock', {
      ...statusRoutes(() => ({ clients: [{ type: 'agent', node: 'node-1', settled: true }] })),
      ...jsonRoutes('/config/wanted', '', (query) =>
        query.get('agent') === 'node-1' ? wantedAnswer(store, scope, query) : undefined,
      ),
      ...dumpRoutes(() => ({ translation: 'all of it' })),
    })
    const held = (kind: ResourceKind): ReadonlyMap<string, HeldResource> =>
      new Map(
        holds
          .filter((one) => one.kind === kind)
          .map((one) => [one.name, { version: one.version, bytes: bytesOf(one) }]),
      )
    await serve('sbx/nodes/node-1/admin.sock', {
      ...statusRoutes(() => ({ node: 'node-1', pods: [], control })),
      ...heldRoutes((query) => heldAnswer({ held }, agentKinds, query)),
      ...dumpRoutes(() => ({ certificates: [] })),
    })
  }

  const flags = { systemNamespace: 'ambit-system', name: 'sbx' }
  const run = async (verb: typeof diff, words: string, output = 'text') => {
    const terminal = testTerminal('')
    const code = await verb(words, { ...flags, output }, terminal, { runRoot: folder, environment: {} })
    return { code, out: terminal.text }
  }

  it('says that a program has all that control has for it', async () => {
    await mesh([workload('a'), workload('b')], [workload('b'), workload('a')])
    const { code, out } = await run(diff, 'node-1')
    expect(code).toBe(0)
    expect(out).toBe(
      'agent node-1 has all that control (control) has for it: 0 MeshSettings, 0 Authorization, 2 Address, 0 Pod.\n',
    )
  })

  it('names what is missing, what is left over, and where what both have differs', async () => {
    await mesh(
      [workload('a', 'new'), workload('b'), workload('c')],
      [workload('a', 'old'), workload('c'), workload('d')],
      { connected: false, rejected: [{ name: 'c//Pod/shop/a', reason: 'bad hostname' }] },
    )
    const { code, out } = await run(diff, 'node/node-1')
    expect(code).toBe(1)
    expect(out).toBe(
      [
        'agent node-1 is not connected to control.',
        '~ Address c//Pod/shop/a  (1 difference)',
        '    refused: bad hostname',
        '    workload.hostname: control "new", agent node-1 "old"',
        '+ Address c//Pod/shop/b  (control has it, agent node-1 does not)',
        '- Address c//Pod/shop/d  (agent node-1 has it, control does not)',
        '',
        '3 resources not as control (control) has it; alike: 0 MeshSettings, 0 Authorization, 1 Address, 0 Pod.',
        '',
      ].join('\n'),
    )
    const json = JSON.parse((await run(diff, 'node-1', 'json')).out) as ConfigDiff
    expect(json.differences.map(({ what, name }) => `${what} ${name}`)).toEqual([
      'changed c//Pod/shop/a',
      'missing c//Pod/shop/b',
      'extra c//Pod/shop/d',
    ])
    expect(json.differences[0]?.changes).toEqual([{ path: 'workload.hostname', from: 'new', to: 'old' }])
  })

  it('dumps whatever a program goes by, as JSON or YAML', async () => {
    await mesh([], [])
    expect(JSON.parse((await run(dump, 'node-1')).out)).toEqual({ certificates: [] })
    expect((await run(dump, 'control', 'yaml')).out).toBe('translation: all of it\n')
  })

  it('refuses what is not there, and control in a comparison', async () => {
    await mesh([], [])
    await expect(run(diff, 'node-7')).rejects.toMatchObject({
      code: 'CLI_NOT_THE_ONE',
      hint: 'There are: control, node-1.',
    })
    await expect(run(diff, 'control')).rejects.toMatchObject({ code: 'CLI_NOT_THE_ONE' })
    await servers.shift()!.close()
    await expect(run(diff, 'node-1')).rejects.toMatchObject({ code: 'CLI_NO_CONTROL' })
  })
})
