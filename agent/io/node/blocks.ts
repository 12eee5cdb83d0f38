// Output blocks: where `write` puts its bytes until the turn ends, and what the socket holds until it took them.
// Must not live here: sockets.

export const BLOCK_SIZE = 65_536

/** Bound on idle blocks kept for reuse: 4 MiB. */
const KEPT = 64

const free: Buffer[] = []

export function takeBlock(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_SIZE)
}

/** Gives a block back once the socket reported it written; bytes in it may be overwritten from here on. */
export function giveBlock(block: Buffer): void {
  if (free.length < KEPT) free.push(block)
}
