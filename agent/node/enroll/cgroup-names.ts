// Whose a process is, by the names of the cgroups it is in: a pure reading of /proc/PID/cgroup. Must not live here: looking at
// processes (discover.ts).

/** What the kubelet or the runtime called the cgroup. */
export interface CgroupOwner {
  /** The pod, where its uid is in the path: both of the kubelet's drivers put it there if it keeps cgroups per pod. */
  readonly uid?: string
  /** The container, where there is no uid. */
  readonly container?: string
}

/** In lower case; the systemd driver writes _ for -. A static pod's is a hash without either. */
const POD = /(?:^|-)pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})(?=$|[.:])/
/** `ID`, `cri-containerd-ID.scope`, `crio-ID`, `docker-ID.scope`, `…:cri-containerd:ID`; not what watches over one (conmon). */
const CONTAINER = /(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$/
const WATCHER = /^crio-conmon-/

/**
 * The owner, by the outermost name in each hierarchy: what is below is the container's own to name, and could be another pod's.
 * Undefined if there is no name, or hierarchies disagree.
 */
export function cgroupOwner(text: string): CgroupOwner | undefined {
  let uid: string | undefined
  let container: string | undefined
  for (const line of text.split('\n')) {
    // hierarchy:controllers:path, and a path may have colons.
    const path = line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1)
    const names = path.split('/')
    const foundUid = firstOf(names, POD)?.replaceAll('_', '-')
    const foundContainer = foundUid === undefined ? firstOf(names, CONTAINER) : undefined
    if (differ(uid, foundUid) || differ(container, foundContainer)) return undefined
    uid ??= foundUid
    container ??= foundContainer
  }
  if (uid !== undefined) return { uid }
  return container === undefined ? undefined : { container }
}

function firstOf(names: readonly string[], pattern: RegExp): string | undefined {
  for (const name of names) {
    const found = WATCHER.test(name) ? undefined : pattern.exec(name)?.[1]
    if (found !== undefined) return found
  }
  return undefined
}

function differ(known: string | undefined, found: string | undefined): boolean {
  return known !== undefined && found !== undefined && known !== found
}
