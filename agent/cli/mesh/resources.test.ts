// What is read of a cluster, from a server that plays one: older definitions, another namespace of Ambit's, rights that are missing.
// Must not live here: what a real server does (test/kube).
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { resourcesOf } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import { page, Player, refuse, reply } from '../../kube/testing.ts'
import { kindFindings } from '../check/cluster.ts'
import { loadCluster } from './resources.ts'

const POLICY = {
  metadata: { namespace: 'shop', name: 'nobody', uid: 'u', resourceVersion: '1' },
  spec: { action: 'DENY', rules: [{}] },
}

let player: Player
beforeEach(async () => (player = await Player.start()))
afterEach(() => player.stop())

/** Lists by path; of the rest there is nothing (404). */
function serve(lists: Readonly<Record<string, readonly object[] | 'forbidden'>>): void {
  player.answer = ({ path }, to) => {
    const items = lists[path]
    if (items === undefined) refuse(to, 404, 'the server could not find the requested resource')
    else if (items === 'forbidden') refuse(to, 403, `${path} is forbidden`)
    else reply(to, page(items as Parameters<typeof page>[0], '7'))
  }
}

describe('the resources of a cluster', () => {
  it('are read in an older version where no newer is served', async () => {
    serve({ '/apis/security.istio.io/v1beta1/authorizationpolicies': [POLICY] })
    const set = resourcesOf(await loadCluster(player.client(), 'ambit-system'))
    expect(set.resources.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`)).toEqual([
      'AuthorizationPolicy shop/nobody',
    ])
  })

  it('are left out with a word where they may not be listed', async () => {
    serve({ '/api/v1/pods': 'forbidden', '/apis/security.istio.io/v1/authorizationpolicies': [POLICY] })
    const { files, problems } = await loadCluster(player.client(), 'ambit-system')
    expect(files).toHaveLength(1)
    expect(problems).toMatchObject([{ severity: 'warning', code: 'CONFIG_UNREADABLE' }])
    expect(problems[0]?.message).toContain('kind Pod cannot be read')
  })

  it('have the settings of the namespace that Ambit is in', async () => {
    const map = {
      metadata: { namespace: 'mesh', name: 'istio', uid: 'm', resourceVersion: '1' },
      data: { mesh: 'trustDomain: shop.example' },
    }
    serve({ '/api/v1/namespaces/mesh/configmaps': [map] })
    const set = resourcesOf(await loadCluster(player.client(), 'mesh'))
    expect(translate({ ...set, systemNamespace: 'mesh' }).settings.trustDomain).toBe('shop.example')
    expect(player.asked.some(({ path }) => path.includes('ambit-system'))).toBe(false)
  })
})

describe('the kinds of a cluster', () => {
  const discovery = (groups: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>): void => {
    player.answer = ({ path }, to) => {
      const [, , group = '', version] = path.split('/')
      const versions = groups[group]
      const kinds = version === undefined ? undefined : versions?.[version]
      if (version === undefined && versions)
        reply(to, { versions: Object.keys(versions).map((one) => ({ version: one })) })
      else if (kinds) reply(to, { resources: kinds.map((kind) => ({ kind })) })
      else refuse(to, 404, 'not found')
    }
  }
  const codes = async (installed: boolean): Promise<string[]> =>
    (await kindFindings(player.client(), installed)).map(({ severity, code, about }) => `${severity} ${code} ${about}`)

  it('may be absent before an install, and not afterwards', async () => {
    discovery({})
    expect(await codes(false)).toEqual(['ok CHECK_KINDS cluster'])
    expect(await codes(true)).toEqual(['error CHECK_KIND_MISSING cluster'])
  })

  it('may be older, as long as they are in a version that is read', async () => {
    discovery({
      'security.istio.io': { v1beta1: ['AuthorizationPolicy'] },
      'gateway.networking.k8s.io': { v1alpha2: ['HTTPRoute'] },
    })
    expect(await codes(false)).toEqual(['error CHECK_KIND_OLDER crd/httproutes.gateway.networking.k8s.io'])
  })
})
