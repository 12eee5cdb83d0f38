// The pod of a waypoint: one container without any rights on a read-only root. Pure. Must not live here: the objects around it
// (waypoint.ts).

/** Where the waypoint's container finds its root certificate and its token. */
export const WAYPOINT_ROOT_CERT = '/var/run/secrets/ambit/root-cert.pem'
export const WAYPOINT_TOKEN = '/var/run/secrets/tokens/istio-token'
/** Its name; parameters written for Istio say istio-proxy. */
export const WAYPOINT_CONTAINER = 'waypoint'

/** Its last good configuration, over a restart of the container. In memory: on no disk, and no full disk concerns it. */
const STATE_DIR = '/var/lib/ambit/waypoint'

/** After SIGTERM: agents hear of it within a second; then requests in flight get their time. Both and some more are its grace. */
const DRAIN_DELAY_SECONDS = 5
const DRAIN_SECONDS = 20
const GRACE_SECONDS = 60

export interface WaypointPodOptions {
  /** Image of the container; default `ambit:latest`. */
  readonly image?: string
  /** `host:port` of control; default that of the chart. */
  readonly control?: string
  /** It runs as a process of the sandbox: `ambit` is on the PATH, volumes are not mounted, cores are shared by all pods. */
  readonly sandbox?: boolean
}

export interface WaypointPodPlace {
  readonly name: string
  readonly namespace: string
  /** Labels of all replicas. */
  readonly selector: Readonly<Record<string, string>>
}

export function waypointPod({ name, namespace, selector }: WaypointPodPlace, options: WaypointPodOptions): unknown {
  const { image = 'ambit:latest', control = 'control.ambit-system.svc:15012', sandbox = false } = options
  const spread = (topologyKey: string) => ({
    maxSkew: 1,
    topologyKey,
    whenUnsatisfiable: 'ScheduleAnyway',
    labelSelector: { matchLabels: selector },
    // Else the old replicas of a rollout would push the new ones together.
    matchLabelKeys: ['pod-template-hash'],
  })
  return {
    serviceAccountName: name,
    // It asks control only, by the token below.
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: GRACE_SECONDS,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    topologySpreadConstraints: [spread('topology.kubernetes.io/zone'), spread('kubernetes.io/hostname')],
    containers: [
      {
        name: WAYPOINT_CONTAINER,
        image,
        imagePullPolicy: 'IfNotPresent',
        command: [sandbox ? 'ambit' : '/opt/ambit/agent/bin/ambit'],
        // prettier-ignore
        args: [
          'waypoint',
          '--name', name,
          '--namespace', namespace,
          '--service-account', name,
          '--control', control,
          '--root-cert', WAYPOINT_ROOT_CERT,
          '--token-file', WAYPOINT_TOKEN,
          '--listen', '[::]:15008',
          '--metrics', '[::]:15020',
          '--ready', '[::]:15021',
          '--drain-seconds', String(DRAIN_SECONDS),
          ...(sandbox ? [] : [
            '--drain-delay-seconds', String(DRAIN_DELAY_SECONDS),
            '--workers', 'auto',
            '--state-dir', STATE_DIR,
          ]),
        ],
        env: [
          { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
          { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
          // Rounded up; without a limit, the cores of the node.
          { name: 'AMBIT_CPU_LIMIT', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
        ],
        ports: [
          { name: 'mesh', containerPort: 15008, protocol: 'TCP' },
          { name: 'metrics', containerPort: 15020, protocol: 'TCP' },
          { name: 'status-port', containerPort: 15021, protocol: 'TCP' },
        ],
        readinessProbe: {
          httpGet: { path: '/healthz/ready', port: 15021 },
          periodSeconds: 2,
          timeoutSeconds: 2,
          failureThreshold: 3,
        },
        // The CPU limit is also the number of its processes, 85 % of the memory what it takes before it refuses. Limits are
        // Istio's; two processes and who watches over them hold 205 MB before the first request.
        resources: { requests: { cpu: '100m', memory: '256Mi' }, limits: { cpu: '2', memory: '1Gi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [
          { name: 'root-cert', mountPath: '/var/run/secrets/ambit', readOnly: true },
          { name: 'token', mountPath: '/var/run/secrets/tokens', readOnly: true },
          { name: 'state', mountPath: STATE_DIR },
        ],
      },
    ],
    volumes: [
      {
        name: 'root-cert',
        configMap: { name: 'ambit-root-cert', items: [{ key: 'root-cert.pem', path: 'root-cert.pem' }] },
      },
      {
        name: 'token',
        projected: {
          sources: [{ serviceAccountToken: { audience: 'istio-ca', expirationSeconds: 43_200, path: 'istio-token' } }],
        },
      },
      { name: 'state', emptyDir: { medium: 'Memory', sizeLimit: '64Mi' } },
    ],
  }
}
