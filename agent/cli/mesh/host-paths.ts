// Where an agent has its things on its node, by the flags it was started with. Must not live here: mounting them (node-jobs.ts).
import { dirname } from 'node:path'
import { DEFAULT_PATHS, type HostPaths } from './node-jobs.ts'

/** By the arguments of the agent's container; the chart's defaults for what they do not say. */
export function pathsOf(args: readonly string[] = []): HostPaths {
  const value = (flag: string): string | undefined => {
    const at = args.findIndex((arg) => arg === flag || arg.startsWith(`${flag}=`))
    if (at < 0) return undefined
    return args[at] === flag ? args[at + 1] : args[at]?.slice(flag.length + 1)
  }
  const pinRoot = value('--pin-root') ?? DEFAULT_PATHS.pinRoot
  const socket = value('--socket')
  return {
    pinRoot,
    bpffs: dirname(pinRoot),
    cgroups: DEFAULT_PATHS.cgroups,
    cniConf: value('--cni-conf-dir') ?? DEFAULT_PATHS.cniConf,
    cniBin: value('--cni-bin-dir') ?? DEFAULT_PATHS.cniBin,
    state: value('--state-dir') ?? DEFAULT_PATHS.state,
    run: socket === undefined ? DEFAULT_PATHS.run : dirname(socket),
  }
}
