// The control plane: etcd, API server, controllers, scheduler, as processes in the fabric's namespace. Must not live here:
// nodes (node.ts), keeping processes alive (../keeper.ts).
import { mkdirSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Keeper, type KeeperOptions } from '../keeper.ts'
import { makeCgroup } from '../world/cgroup.ts'
import { programCommand } from '../world/container.ts'
import { run } from '../world/run.ts'
import { API_PORT, apiServerNames, kubeconfigOf, type KubeLayout } from './layout.ts'
import type { Built } from './programs.ts'

type Ends = (what: string) => Pick<KeeperOptions, 'onEnded' | 'onStarted'>

/** Makes every certificate and the kubeconfigs of the control plane and the person. */
export async function writeCredentials(layout: KubeLayout, project: string): Promise<void> {
  const folder = layout.certificates
  await run(join(project, 'deploy/kubernetes/certificates.sh'), [
    folder,
    apiServerNames(layout),
    ...layout.nodes.map((node) => `${node.name}=${node.address4}`),
  ])
  const loopback = `https://127.0.0.1:${API_PORT}`
  for (const user of ['controller-manager', 'scheduler'])
    writeFileSync(join(folder, `${user}.kubeconfig`), kubeconfigOf(layout, loopback, user, folder), { mode: 0o600 })
  writeFileSync(layout.kubeconfig, kubeconfigOf(layout, layout.apiUrl, 'admin', folder), { mode: 0o600 })
}

export function controlPlane(layout: KubeLayout, built: Built, logs: string, ends: Ends): Keeper[] {
  const pki = layout.certificates
  const data = join(layout.disk, 'etcd')
  mkdirSync(data, { recursive: true, mode: 0o700 })
  const kube = join(built.programs, 'kube')
  const keeper = (name: string, command: readonly string[]): Keeper => {
    const cgroup = join(layout.cgroup, 'fabric', name)
    makeCgroup(cgroup)
    return new Keeper({
      name,
      logFile: join(logs, `${name}.log`),
      restart: 'Always',
      forks: false,
      command: () => programCommand(layout.fabricNetns, cgroup, command),
      ...ends(name),
    })
  }
  const own = (user: string): string[] =>
    ['kubeconfig', 'authentication-kubeconfig', 'authorization-kubeconfig'].map(
      (flag) => `--${flag}=${join(pki, `${user}.kubeconfig`)}`,
    )
  return [
    keeper('etcd', [
      join(built.programs, 'etcd'),
      `--data-dir=${data}`,
      '--listen-client-urls=http://127.0.0.1:2379',
      '--advertise-client-urls=http://127.0.0.1:2379',
      '--listen-peer-urls=http://127.0.0.1:2380',
      // A power cut ends the sandbox anyway; kill -9 loses nothing that was written.
      '--unsafe-no-fsync',
      '--auto-compaction-retention=5m',
    ]),
    keeper('kube-apiserver', [
      kube,
      'apiserver',
      '--etcd-servers=http://127.0.0.1:2379',
      '--bind-address=0.0.0.0',
      `--secure-port=${API_PORT}`,
      `--advertise-address=${layout.fabricAddress4}`,
      `--service-cluster-ip-range=${layout.serviceCidr4}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      `--client-ca-file=${join(pki, 'ca.crt')}`,
      `--tls-cert-file=${join(pki, 'apiserver.crt')}`,
      `--tls-private-key-file=${join(pki, 'apiserver.key')}`,
      `--kubelet-certificate-authority=${join(pki, 'ca.crt')}`,
      `--kubelet-client-certificate=${join(pki, 'apiserver-kubelet-client.crt')}`,
      `--kubelet-client-key=${join(pki, 'apiserver-kubelet-client.key')}`,
      // So that API servers of extensions know who asks.
      `--requestheader-client-ca-file=${join(pki, 'ca.crt')}`,
      '--requestheader-allowed-names=front-proxy-client',
      '--requestheader-username-headers=X-Remote-User',
      '--requestheader-group-headers=X-Remote-Group',
      '--requestheader-extra-headers-prefix=X-Remote-Extra-',
      `--proxy-client-cert-file=${join(pki, 'front-proxy-client.crt')}`,
      `--proxy-client-key-file=${join(pki, 'front-proxy-client.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--service-account-key-file=${join(pki, 'service-accounts.pub')}`,
      `--service-account-signing-key-file=${join(pki, 'service-accounts.key')}`,
      // Webhooks are called at a pod's address: no kube-proxy runs where this program does.
      '--enable-aggregator-routing=true',
    ]),
    keeper('kube-controller-manager', [
      kube,
      'controller-manager',
      ...own('controller-manager'),
      '--bind-address=127.0.0.1',
      '--leader-elect=false',
      '--use-service-account-credentials=true',
      `--root-ca-file=${join(pki, 'ca.crt')}`,
      `--service-account-private-key-file=${join(pki, 'service-accounts.key')}`,
      `--cluster-signing-cert-file=${join(pki, 'ca.crt')}`,
      `--cluster-signing-key-file=${join(pki, 'ca.key')}`,
    ]),
    keeper('kube-scheduler', [
      kube,
      'scheduler',
      ...own('scheduler'),
      '--bind-address=127.0.0.1',
      '--leader-elect=false',
    ]),
  ]
}

export interface Answer {
  readonly status: number
  readonly body: string
}

/** One request to the API server as cluster administrator. */
export function askApi(layout: KubeLayout, path: string, timeoutMs = 5_000): Promise<Answer> {
  const read = (name: string): Buffer => readFileSync(join(layout.certificates, name))
  return new Promise((resolve, reject) => {
    const outgoing = request(
      `${layout.apiUrl}${path}`,
      {
        agent: new Agent({ ca: read('ca.crt'), cert: read('admin.crt'), key: read('admin.key') }),
        timeout: timeoutMs,
      },
      (response) => {
        let body = ''
        response.on('data', (chunk: Buffer) => (body += chunk.toString()))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
        response.on('error', reject)
      },
    )
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs} ms`)))
    outgoing.on('error', reject)
    outgoing.end()
  })
}
