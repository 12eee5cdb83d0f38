// How an installed Ambit stands: its workloads by the API, its programs by their own word, and what neither says alone (a pod that is
// enrolled and that no agent has). Must not live here: whether it could be installed (cluster.ts, nodes.ts), certificates (trust.ts).
import { resourcesOf } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import type { Translation } from '../../config/translation.ts'
import type { KubeClient } from '../../kube/client.ts'
import { DEPLOYMENTS, LEASES, PODS } from '../../kube/mesh-kinds.ts'
import { read } from '../../kube/apply.ts'
import type { KubeObject } from '../../kube/resource.ts'
import { listAll, podProblem, type ClusterPod } from '../mesh/cluster.ts'
import { agentSync, certificatesText, waypointSync, type Reports } from '../mesh/report.ts'
import { loadCluster } from '../mesh/resources.ts'
import { plural } from '../print.ts'
import { DAEMON_SETS } from './cluster.ts'
import { error, ok, some, warning, type Finding } from './finding.ts'

export interface AgentDaemonSet extends KubeObject {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly containers: readonly { readonly image: string; readonly args?: readonly string[] }[]
        readonly imagePullSecrets?: readonly { readonly name: string }[]
      }
    }
  }
  readonly status?: {
    readonly desiredNumberScheduled?: number
    readonly numberReady?: number
    readonly updatedNumberScheduled?: number
    readonly numberAvailable?: number
  }
}

/** Undefined: Ambit is not installed there. */
export function agentDaemonSet(client: KubeClient, namespace: string): Promise<AgentDaemonSet | undefined> {
  return read<AgentDaemonSet>(client, DAEMON_SETS, { namespace, name: 'ambit-agent' })
}

interface Deployment extends KubeObject {
  readonly spec?: { readonly replicas?: number }
  readonly status?: { readonly readyReplicas?: number; readonly updatedReplicas?: number }
}

/** Everything is there, new and ready; what keeps a pod from it, in the kubelet's words. */
export async function workloadFindings(
  client: KubeClient,
  namespace: string,
  agents: AgentDaemonSet,
): Promise<Finding[]> {
  const found: Finding[] = []
  const { desiredNumberScheduled = 0, numberReady = 0, updatedNumberScheduled = 0 } = agents.status ?? {}
  if (numberReady < desiredNumberScheduled)
    found.push(
      error(
        'CHECK_AGENTS_NOT_READY',
        'daemonset/ambit-agent',
        `${numberReady} of ${desiredNumberScheduled} agents are ready.`,
        `kubectl -n ${namespace} get pods -l app=ambit-agent -o wide; nodes without one start no pods of the mesh.`,
      ),
    )
  else if (updatedNumberScheduled < desiredNumberScheduled)
    found.push(
      warning(
        'CHECK_AGENTS_OLD',
        'daemonset/ambit-agent',
        `${updatedNumberScheduled} of ${desiredNumberScheduled} agents are of the newest template.`,
        'A rollout goes on; `kubectl rollout status` follows it.',
      ),
    )
  else found.push(ok('CHECK_AGENTS', 'daemonset/ambit-agent', `${plural(numberReady, 'agent')} ready.`))
  const control = await read<Deployment>(client, DEPLOYMENTS, { namespace, name: 'ambit-control' })
  const wanted = control?.spec?.replicas ?? 1
  const ready = control?.status?.readyReplicas ?? 0
  if (ready === 0)
    found.push(
      error(
        'CHECK_CONTROL_NOT_READY',
        'deployment/ambit-control',
        control ? 'No replica of control is ready.' : 'There is no control.',
        'The mesh goes on with what it knows; changes and new pods wait for control.',
      ),
    )
  else if (ready < wanted)
    found.push(
      warning('CHECK_CONTROL_NOT_READY', 'deployment/ambit-control', `${ready} of ${wanted} replicas are ready.`, ''),
    )
  else found.push(ok('CHECK_CONTROL', 'deployment/ambit-control', `${plural(ready, 'replica')} ready.`))
  const pods = await listAll<ClusterPod>(client, PODS, {
    namespace,
    labelSelector: 'app in (ambit-agent, ambit-control)',
  })
  for (const pod of pods ?? []) {
    const problem = podProblem(pod)
    if (problem !== undefined && pod.status?.phase !== 'Succeeded')
      found.push(error('CHECK_POD', `pod/${namespace}/${pod.metadata.name}`, `${problem}.`, ''))
  }
  return found
}

/** Somebody writes statuses, trust bundles and waypoints. `now`: milliseconds since the epoch. */
export async function leaderFindings(client: KubeClient, namespace: string, now: number): Promise<Finding[]> {
  interface Lease extends KubeObject {
    readonly spec?: {
      readonly holderIdentity?: string
      readonly renewTime?: string
      readonly leaseDurationSeconds?: number
    }
  }
  const about = 'lease/ambit-control-leader'
  const lease = await read<Lease>(client, LEASES, { namespace, name: 'ambit-control-leader' })
  const { holderIdentity, renewTime, leaseDurationSeconds = 15 } = lease?.spec ?? {}
  const age = renewTime === undefined ? Infinity : (now - Date.parse(renewTime)) / 1000
  if (holderIdentity && age < 2 * leaseDurationSeconds) return [ok('CHECK_LEADER', about, `${holderIdentity} leads.`)]
  return [
    error(
      'CHECK_LEADER',
      about,
      holderIdentity
        ? `${holderIdentity} led last, ${Math.round(age)} s ago.`
        : 'No replica of control has taken the lead yet.',
      'Without a leader no statuses, trust bundles and waypoints are written: see the log of ambit-control.',
    ),
  ]
}

/** By what each program answered to /status. */
export function programFindings(reports: Reports, version: string, now: number): Finding[] {
  const found: Finding[] = []
  const { agents, control, waypoints } = reports
  for (const { program, error: problem } of [...agents, ...control, ...waypoints])
    if (problem !== undefined) found.push(error('CHECK_UNREACHABLE', `${program.kind}/${program.name}`, problem, ''))
  for (const { status } of agents) if (status) found.push(...agentFindings(status, reports, now))
  for (const { program, status } of control) {
    if (!status) continue
    const { error: errors, warning: warnings } = status.problems
    if (errors > 0)
      found.push(
        warning(
          'CHECK_RESOURCES',
          `control/${program.name}`,
          `${plural(errors, 'error')} and ${plural(warnings, 'warning')} in the resources that control reads.`,
          '`ambit analyze -A` names them.',
        ),
      )
  }
  for (const { program, status } of waypoints) {
    if (!status) continue
    const about = `waypoint/${program.name}`
    const { text, well } = certificatesText(status.certificates ?? [], now)
    if (!status.ready)
      found.push(error('CHECK_WAYPOINT_NOT_READY', about, `${status.pod} waits for ${status.pending.join(', ')}.`, ''))
    else if (!well) found.push(error('CHECK_CERTIFICATES', about, `Certificates: ${text}.`, ''))
    else if (waypointSync(status, control) !== 'in sync')
      found.push(syncFinding(about, waypointSync(status, control), `ambit config diff ${program.name}`))
    else found.push(ok('CHECK_WAYPOINT', about, `${status.pod} is ready and in sync; certificates: ${text}.`))
  }
  const versions = new Set(
    [...agents, ...control, ...waypoints].flatMap(({ status }) => (status ? [status.version] : [])),
  )
  if (versions.size > 1 || (versions.size === 1 && !versions.has(version)))
    found.push(
      warning(
        'CHECK_VERSIONS',
        'cluster',
        `Versions side by side: ${[...versions].toSorted().join(', ')}; this command is ${version}.`,
        'During an upgrade that is as it should be.',
      ),
    )
  return found
}

function agentFindings(
  status: NonNullable<Reports['agents'][number]['status']>,
  reports: Reports,
  now: number,
): Finding[] {
  const about = `node/${status.node}`
  const found: Finding[] = []
  // Two agents overlap in an upgrade: the newer one speaks for the node.
  if (!status.leads) return []
  const captured = status.pods.filter(({ phase }) => phase === 'captured')
  const unproved = captured.filter((pod) => pod.protected !== true)
  const waiting = status.pods.filter(({ phase }) => phase !== 'captured' && phase !== 'out')
  for (const pod of unproved)
    found.push(
      error(
        'CHECK_POD_NOT_PROVED',
        `pod/${pod.namespace}/${pod.name}`,
        `${status.node} cannot prove that it is protected: ${pod.problem || 'not proved yet'}.`,
        'Its traffic is refused rather than let through; the agent repairs what it can and proves again every few seconds.',
      ),
    )
  for (const pod of waiting)
    found.push(
      error('CHECK_POD_NOT_CAPTURED', `pod/${pod.namespace}/${pod.name}`, `It is ${pod.phase}: ${pod.reason}`, ''),
    )
  const { text, well } = certificatesText(status.certificates ?? [], now)
  if (!well)
    found.push(
      error('CHECK_CERTIFICATES', about, `Certificates: ${text}.`, 'See the logs of its agent and of control.'),
    )
  const rejected = status.control.rejected ?? []
  if (rejected.length > 0)
    found.push(
      error(
        'CHECK_CONFIG_REFUSED',
        about,
        `Its agent refused ${plural(rejected.length, 'resource')}: ${some(
          rejected.map(({ name, reason }) => `${name} (${reason})`),
          3,
        )}.`,
        'It goes on with the last good version of each: are control and agent of one version?',
      ),
    )
  const sync = agentSync(status, reports.control)
  if (sync !== 'in sync') found.push(syncFinding(about, sync, `ambit config diff ${status.node}`))
  if (!status.kernel.tablesSynced)
    found.push(
      warning('CHECK_TABLES', about, 'Its kernel tables are not in force: everything goes through the agent.', ''),
    )
  if (status.kubelet.state !== 'exempt')
    found.push(
      warning(
        'CHECK_KUBELET',
        about,
        `Probes of its kubelet are judged by policy: ${status.kubelet.detail}`,
        'Under STRICT they fail; chart: agent.kubeletCgroup names the kubelet’s cgroup.',
      ),
    )
  if (!found.some(({ severity }) => severity === 'error'))
    found.unshift(
      ok(
        'CHECK_AGENT',
        about,
        `${plural(captured.length, 'pod')} captured and proved, ${sync}; certificates: ${text}.`,
      ),
    )
  return found
}

function syncFinding(about: string, sync: string, command: string): Finding {
  if (sync === 'away')
    return error(
      'CHECK_CONTROL_AWAY',
      about,
      'It is not connected to control and goes on with the last good state.',
      'Do its pods reach the Service control of Ambit’s namespace, and is control ready?',
    )
  return warning('CHECK_NOT_IN_SYNC', about, `Its configuration is ${sync}.`, `${command} names the differences.`)
}

/** What is enrolled by the very rules that control goes by, and is not with any agent. */
export async function enrolmentFindings(
  client: KubeClient,
  systemNamespace: string,
  reports: Reports,
): Promise<{ readonly findings: Finding[]; readonly translation: Translation }> {
  const translation = translate({ ...resourcesOf(await loadCluster(client, systemNamespace)), systemNamespace })
  const known = new Set(
    reports.agents.flatMap(({ status }) => status?.pods.map((pod) => `${pod.namespace}/${pod.name}`) ?? []),
  )
  const silent = new Set(reports.agents.filter(({ status }) => !status).map(({ program }) => program.name))
  const enrolled = translation.workloads.filter(
    (one) => one.tunnelProtocol === 'HBONE' && !one.nativeTunnel && one.node !== '',
  )
  // Where an agent cannot be asked that is told already.
  const lost = enrolled.filter((one) => !known.has(`${one.namespace}/${one.name}`) && !silent.has(one.node))
  const findings = lost.map(({ namespace, name, node }) =>
    error(
      'CHECK_POD_NOT_CAPTURED',
      `pod/${namespace}/${name}`,
      `It is enrolled and no agent has it (it is on ${node}).`,
      'Is an agent on that node? The node selector and tolerations of the chart must include it.',
    ),
  )
  if (lost.length === 0)
    findings.push(ok('CHECK_ENROLMENT', 'cluster', `All ${plural(enrolled.length, 'enrolled pod')} are with an agent.`))
  return { findings, translation }
}

/** Waypoints that somebody is to be reached through, and that have no ready pod: who uses them is refused. */
export function waypointFindings(translation: Translation): Finding[] {
  const found: Finding[] = []
  for (const { namespace, name, service } of translation.waypoints) {
    const ready = translation.workloads.some(
      (one) => one.namespace === namespace && one.nativeTunnel && one.healthy && service in one.services,
    )
    if (!ready)
      found.push(
        error(
          'CHECK_WAYPOINT_NOT_READY',
          `waypoint/${namespace}/${name}`,
          'It has no ready pod: what is reached through it is refused meanwhile.',
          `kubectl -n ${namespace} get gateway,deployment,pods -l gateway.networking.k8s.io/gateway-name=${name}`,
        ),
      )
  }
  return found
}
