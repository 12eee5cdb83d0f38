// Descriptor helpers of native/bpf that the agent's main needs: this folder is the only one that may import it.
import { readFileSync } from 'node:fs'
import { cgroupId, dupFd } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'

/** dup(2), close-on-exec: for a transport that listens on descriptors it does not own. */
export const duplicate: (fd: number) => number = dupFd

/** Where the cgroup2 hierarchy is mounted: not always /sys/fs/cgroup (hybrid hosts have it in a folder below). */
function cgroup2Mount(): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    if (right.startsWith('cgroup2 ')) return left.split(' ')[4] ?? ''
  }
  throw new AmbitError('REDIRECT_NO_CGROUP2', 'No cgroup2 hierarchy is mounted.', {
    hint: 'Mount it: mount -t cgroup2 none /sys/fs/cgroup/unified.',
  })
}

/** Id of the cgroup this process is in: what exempts its sockets from capture. Throws REDIRECT_NO_CGROUP2. */
export function ownCgroupId(): bigint {
  const line = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .find((one) => one.startsWith('0::'))
  const path = line?.slice('0::'.length) ?? '/'
  return cgroupId(`${cgroup2Mount()}${path === '/' ? '' : path}`)
}
