// `ambit agent --probe`: whether this node has what an agent needs, as JSON, without an agent, control or anything changed. It runs as
// the agent would: with its rights and its folders. Must not live here: how a feature is tried (redirect/features.ts), showing it (cli/).
import { accessSync, constants, existsSync } from 'node:fs'
import { arch, release, version as kernelVersion } from 'node:os'
import { dirname } from 'node:path'
import { AmbitError, messageOf } from '../base/errors.ts'
import { look } from './cni/network.ts'
import { isOnBpffs, probeNeeds, requireNeeds } from './redirect/features.ts'
import { findPodsCgroup } from './redirect/pods-cgroup.ts'
import { rungOf, type Rung } from './redirect/rung.ts'

export interface ProbeProblem {
  readonly severity: 'error' | 'warning'
  readonly code: string
  readonly message: string
  readonly hint: string
}

export interface ProbeReport {
  readonly version: string
  readonly node: string
  readonly kernel: { readonly release: string; readonly version: string; readonly arch: string }
  /** Feature → whether the kernel has it and lets this process use it. */
  readonly features: Readonly<Record<string, boolean>>
  readonly rung: Rung
  /** Parent of the pods' cgroups; absent where there is none. */
  readonly cgroup?: string
  /** The network configuration that the runtime takes, and whether Ambit's plugin is in it; absent where CNI was not asked about. */
  readonly cni?: { readonly file: string; readonly chained: boolean }
  readonly problems: readonly ProbeProblem[]
}

export interface ProbeOptions {
  readonly version: string
  readonly node: string
  readonly pinRoot: string
  /** Said by a flag; else it is found. */
  readonly cgroup?: string
  readonly cniConfDir?: string
  readonly cniBinDir?: string
  /** Features to treat as missing. */
  readonly missing: Readonly<Record<string, boolean>>
}

/** Looks at everything; an error among the problems means that no agent can run here. Never throws. */
export async function probeNode(options: ProbeOptions): Promise<ProbeReport> {
  const { version, node, pinRoot, cniConfDir, cniBinDir } = options
  const problems: ProbeProblem[] = []
  const tried = async <T>(severity: ProbeProblem['severity'], task: () => T | Promise<T>): Promise<T | undefined> => {
    try {
      return await task()
    } catch (error) {
      const { code, message, hint = '' } = error instanceof AmbitError ? error : failure(error)
      problems.push({ severity, code, message, hint })
      return undefined
    }
  }
  const features = probeNeeds(options.missing)
  await tried('error', () => requireNeeds(features))
  const cgroup = await tried('error', () => options.cgroup ?? findPodsCgroup())
  await tried('error', () => checkBpffs(pinRoot))
  const rung = rungOf(features)
  for (const { feature, lacking } of rung.lacks)
    problems.push({
      severity: 'warning',
      code: 'PROBE_FEATURE_LACKING',
      message: `Not to be had on a kernel without ${feature}: ${lacking}.`,
      hint: 'The mesh works without it; a newer kernel has it.',
    })
  const cni = cniConfDir === undefined ? undefined : await tried('error', () => look(cniConfDir))
  if (cniBinDir !== undefined) await tried('error', () => checkWritable(cniBinDir))
  return {
    version,
    node,
    kernel: { release: release(), version: kernelVersion(), arch: arch() },
    features,
    rung,
    ...(cgroup === undefined ? {} : { cgroup }),
    ...(cni ? { cni } : {}),
    problems,
  }
}

function failure(error: unknown): { code: string; message: string; hint?: string } {
  return { code: 'PROBE_FAILED', message: messageOf(error) }
}

function checkBpffs(pinRoot: string): void {
  // The folder itself is made by the agent.
  const folder = existsSync(pinRoot) ? pinRoot : dirname(pinRoot)
  if (isOnBpffs(folder)) return
  throw new AmbitError('REDIRECT_NO_BPFFS', `${folder} does not lie on a bpffs.`, {
    hint: 'Mount it on the node: mount -t bpf none /sys/fs/bpf.',
  })
}

function checkWritable(folder: string): void {
  try {
    accessSync(folder, constants.W_OK)
  } catch (cause) {
    throw new AmbitError('CNI_FILE', `${folder} cannot be written to: ${messageOf(cause)}.`, {
      hint: "The runtime's folder of plugins; name it with --cni-bin-dir (chart: hostPaths.cniBin).",
      cause,
    })
  }
}
