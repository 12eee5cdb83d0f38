// Descriptor helpers of native/bpf: this folder is the only one of the agent that may import it. Must not live here: which
// descriptors there are.
import { BpfError, closeFd, dupFd } from '../../../native/bpf/index.ts'
import type { PodListeners } from './contract.ts'

/** dup(2), close-on-exec: for a transport that listens on descriptors it does not own. */
export const duplicate: (fd: number) => number = dupFd

export function closeListeners({ outbound, hbone, plaintext, older }: PodListeners): void {
  for (const fd of [outbound, hbone, plaintext]) closeQuietly(fd)
  if (older) closeListeners(older)
}

/** On ways out, where a descriptor may be closed already and nothing is to be done about it. */
export function closeQuietly(fd: number): void {
  try {
    closeFd(fd)
  } catch (error) {
    if (!(error instanceof BpfError)) throw error
  }
}
