import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog } from '../../base/log.ts'
import { KubeError } from '../../kube/errors.ts'
import type { Ask, KubeClient } from '../../kube/client.ts'
import { NAMESPACES } from '../../kube/mesh-kinds.ts'
import type { KubeObject } from '../../kube/resource.ts'
import { TrustBundles } from './trust-bundle.ts'

/** An API server with namespaces of which one takes no ConfigMap; it tells nothing by its watches. */
function world(names: readonly string[], stubborn: string) {
  const written: string[] = []
  const clock = new ManualClock()
  const client = {
    ask(ask: Ask): Promise<unknown> {
      if (ask.method !== 'PATCH') return Promise.resolve({ metadata: { resourceVersion: '1' }, items: [] })
      const namespace = /namespaces\/([^/]+)/.exec(ask.path)?.[1] ?? ''
      written.push(namespace)
      return namespace === stubborn
        ? Promise.reject(new KubeError('KUBE_FORBIDDEN', 'exceeded quota', { status: 403 }))
        : Promise.resolve({})
    },
    open: () => new Promise(() => undefined),
  } as unknown as KubeClient
  const objects = new Map(names.map((name): [string, KubeObject] => [name, { metadata: { name } }]))
  let tell: (resource: typeof NAMESPACES, changes: readonly { type: 'set'; key: string }[]) => void = () => undefined
  const bundles = new TrustBundles({
    client,
    objects: {
      complete: true,
      list: () => objects.values(),
      get: (_, __, name) => objects.get(name),
      served: (resource) => resource,
      onChange: (listener) => ((tell = listener as typeof tell), () => undefined),
    },
    leadership: { leads: true, holder: 'me', onChange: () => () => undefined },
    roots: () => 'roots',
    clock,
    log: silentLog,
  })
  const arrive = (name: string): void => {
    objects.set(name, { metadata: { name } })
    tell(NAMESPACES, [{ type: 'set', key: name }])
  }
  return { bundles, written, clock, arrive }
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
}

describe('trust bundles', () => {
  it('reach a new namespace at once while another takes none, and that one is tried ever more slowly', async () => {
    const { bundles, written, clock, arrive } = world(['a', 'full'], 'full')
    bundles.start()
    await turns()
    expect(written).toEqual(['a', 'full'])
    arrive('later')
    await turns()
    expect(written).toEqual(['a', 'full', 'later'])
    clock.advance(120_000)
    await turns()
    const tries = (): number => written.filter((name) => name === 'full').length
    expect(tries()).toBe(2)
    for (let minute = 0; minute < 10; minute++) {
      clock.advance(60_000)
      await turns()
    }
    expect(tries()).toBe(12)
  })
})
