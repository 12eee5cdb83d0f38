// A waypoint on a real cluster, made by applying a Gateway: what it runs as, the shop's split and policy through it, and that
// nobody notices when it is scaled and restarted. Its last test takes it away.
import { beforeAll, describe, expect, it } from 'vitest'
import { failuresOf, underLoad, type Client } from '../../world/kube-load.ts'
import type { KubeMesh } from '../../world/kube-mesh.ts'
import { tell } from '../../world/kube.ts'
import { eventually } from '../../world/sandbox.ts'

let mesh: KubeMesh

interface Condition {
  readonly type: string
  readonly status: string
}
interface Gateway {
  readonly status?: {
    readonly addresses?: readonly { readonly value: string }[]
    readonly conditions?: readonly Condition[]
  }
}

const FRONTEND = 'frontend-deployment'
/** Status and version of each of some requests of a pod of the shop. */
async function ask(deployment: string, path: string, times: number): Promise<string[]> {
  const one = `curl -sS -m 5 -o /dev/null -w '%{http_code} %header{x-echo-version}\\n' http://my-service${path}`
  const out = await mesh.kubectl([
    ...['-n', 'shop', 'exec', `deployment/${deployment}`, '--'],
    ...['sh', '-c', `for i in $(seq ${times}); do ${one}; done`],
  ])
  return out.split('\n').map((line) => line.trim())
}

export function waypoint(of: () => KubeMesh): void {
  describe('a Gateway of class ambit-waypoint', () => {
    beforeAll(() => {
      mesh = of()
    })

    it('becomes a waypoint, and says so in its status', async () => {
      await mesh.kubectl('-n shop rollout status deployment/waypoint --timeout=90s')
      const address = await mesh.kubectl('-n shop get service waypoint -o jsonpath={.spec.clusterIP}')
      await eventually('Programmed', async () => {
        const { status } = await mesh.get<Gateway>('gateway waypoint -n shop')
        const programmed = status?.conditions?.find((one) => one.type === 'Programmed')
        return programmed?.status === 'True' && status?.addresses?.some((one) => one.value === address)
      })
    })

    it('runs as nobody, without rights, on a root that cannot be written to', async () => {
      const shown = await mesh.kubectl([
        ...['-n', 'shop', 'exec', 'deployment/waypoint', '--', 'sh', '-c'],
        'id -u; touch /here 2>&1; ls /var/run/secrets/kubernetes.io 2>&1; grep CapEff /proc/1/status',
      ])
      expect(shown).toContain('65532')
      expect(shown).toContain('Read-only file system')
      // It has no rights at the API server, and no token for it.
      expect(shown).toContain("cannot access '/var/run/secrets/kubernetes.io'")
      expect(shown).toMatch(/CapEff:\s+0{16}/)
    })

    it('splits and judges requests as the shop wants it', async () => {
      const answers = await eventually('answers', async () => {
        const some = await ask(FRONTEND, '/api/items', 40)
        return some.every((one) => one.startsWith('200')) && some
      })
      const v2 = (answers as string[]).filter((one) => one === '200 v2').length
      expect(v2).toBeGreaterThan(0)
      expect(v2).toBeLessThan(20)
      expect(await ask(FRONTEND, '/secret', 2)).toEqual(['403', '403'])
      expect(await ask('intruder', '/api/items', 2)).toEqual(['403', '403'])
    })

    it('is scaled from 1 to 3 and back, and restarted, without a request lost', async () => {
      const pod = (await mesh.kubectl('-n shop get pods -l app=frontend -o name')).split('\n')[0]!.replace('pod/', '')
      const clients: Client[] = [true, false].map((close) => ({
        namespace: 'shop',
        pod,
        url: 'http://my-service/api/items',
        close,
      }))
      const sums = await underLoad(mesh.cluster, clients, async () => {
        await mesh.kubectl('-n shop scale deployment/waypoint --replicas=3')
        await mesh.kubectl('-n shop rollout status deployment/waypoint --timeout=90s')
        await new Promise((resolve) => setTimeout(resolve, 2_000))
        await mesh.kubectl('-n shop scale deployment/waypoint --replicas=1')
        await mesh.kubectl('-n shop rollout restart deployment/waypoint')
        await mesh.kubectl('-n shop rollout status deployment/waypoint --timeout=90s')
        // Until the last old one has drained.
        await eventually(
          'one waypoint',
          async () =>
            (await mesh.kubectl('-n shop get pods -l gateway.networking.k8s.io/gateway-name=waypoint -o name')).split(
              '\n',
            ).length === 1,
          60_000,
        )
      })
      tell(`waypoint 1 to 3 to 1, restarted: ${sums.map((one) => one.requests).join(' and ')} requests`)
      expect(failuresOf(sums)).toEqual({})
      for (const one of sums) expect(one.requests).toBeGreaterThan(100)
    }, 180_000)

    it('takes its pods along when it is deleted, and what is labelled to use it is refused', async () => {
      await mesh.kubectl('-n shop delete gateway waypoint')
      await eventually(
        'refused',
        async () => (await ask(FRONTEND, '/api/items', 1).catch(() => ['000'])).every((one) => !one.startsWith('200')),
        30_000,
      )
      await eventually(
        'no waypoint',
        async () =>
          (await mesh.kubectl(
            '-n shop get deployment,service,serviceaccount,pdb -l gateway.istio.io/managed -o name',
          )) === '',
        90_000,
      )
    }, 150_000)
  })
}
