{{/* Names and blocks that several templates share. */}}

{{- define "ambit.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "ambit.labels" -}}
app.kubernetes.io/name: ambit
app.kubernetes.io/part-of: ambit
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "ambit.scrape" -}}
{{- if .Values.metrics.annotations -}}
prometheus.io/scrape: 'true'
prometheus.io/port: '15020'
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{- define "ambit.exemptNamespaces" -}}
{{ concat (list .Release.Namespace) .Values.agent.exemptNamespaces | uniq | join "," }}
{{- end }}

{{- define "ambit.pinRoot" -}}
{{ .Values.hostPaths.bpffs }}/{{ .Values.hostPaths.pins }}
{{- end }}

{{/* What agent and control show each other: the mesh's roots, and a token for control alone. */}}
{{- define "ambit.identityVolumes" -}}
- name: root-cert
  configMap:
    name: ambit-root-cert
    items: [{ key: root-cert.pem, path: root-cert.pem }]
- name: token
  projected:
    sources:
      - serviceAccountToken: { audience: istio-ca, expirationSeconds: 43200, path: istio-token }
{{- end }}

{{/*
The host paths of an agent, and of what takes it off a node. Folders of the node are mounted where they are, so that a path
means the same inside and outside.
*/}}
{{- define "ambit.hostVolumes" -}}
- name: run
  hostPath: { path: {{ .Values.hostPaths.run }}, type: DirectoryOrCreate }
- name: state
  hostPath: { path: {{ .Values.hostPaths.state }}, type: DirectoryOrCreate }
- name: bpffs
  hostPath: { path: {{ .Values.hostPaths.bpffs }}, type: Directory }
- name: cgroups
  hostPath: { path: {{ .Values.hostPaths.cgroups }}, type: Directory }
- name: netns
  hostPath: { path: {{ .Values.hostPaths.netns }}, type: DirectoryOrCreate }
{{- if .Values.cni.enabled }}
- name: cni-conf
  hostPath: { path: {{ .Values.hostPaths.cniConf }}, type: DirectoryOrCreate }
- name: cni-bin
  hostPath: { path: {{ .Values.hostPaths.cniBin }}, type: DirectoryOrCreate }
{{- end }}
{{- end }}

{{- define "ambit.hostMounts" -}}
- { name: run, mountPath: {{ .Values.hostPaths.run }} }
- { name: state, mountPath: {{ .Values.hostPaths.state }} }
- { name: bpffs, mountPath: {{ .Values.hostPaths.bpffs }} }
- { name: cgroups, mountPath: {{ .Values.hostPaths.cgroups }} }
# Namespaces that the runtime makes later are seen too.
- { name: netns, mountPath: {{ .Values.hostPaths.netns }}, mountPropagation: HostToContainer }
{{- if .Values.cni.enabled }}
- { name: cni-conf, mountPath: {{ .Values.hostPaths.cniConf }} }
- { name: cni-bin, mountPath: {{ .Values.hostPaths.cniBin }} }
{{- end }}
{{- end }}

{{/* Each with what it is for. Nothing else of root is left. */}}
{{- define "ambit.agentSecurity" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: { type: RuntimeDefault }
# The runtime's default profile lets nobody write below /sys/fs/bpf, nor read /proc of pods: on Debian, Ubuntu and their like no agent
# would start. Where there is no AppArmor this asks for nothing.
appArmorProfile: { type: Unconfined }
capabilities:
  drop: [ALL]
  add:
    - BPF # load programs and make maps
    - PERFMON # programs that read kernel memory (socket counters)
    - NET_ADMIN # attach to cgroups and to pods' interfaces, transparent listeners
    - SYS_ADMIN # enter pods' network namespaces (setns), pin and find objects by id, look links up
    - SYS_PTRACE # read /proc/PID/ns and /proc/PID/cgroup of pods, which run as other users
    - DAC_OVERRIDE # CNI's folders where they are not root's
{{- end }}
