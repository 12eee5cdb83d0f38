// Calls that must not come from inside a user's own call: they are made when the call that is running has returned, many for
// one tick. Must not live here: time (sweep.ts).

type Call = (first: never, second: never, third: never) => void

let queue: unknown[] = []
let spare: unknown[] = []

/** Calls `call(first, second, third)` once the running call from the event loop has returned, in the order of asking. */
export function later<A, B, C>(call: (first: A, second: B, third: C) => void, first: A, second: B, third: C): void {
  if (queue.length === 0) process.nextTick(run)
  queue.push(call, first, second, third)
}

function run(): void {
  const calls = queue
  queue = spare
  spare = []
  let at = 0
  try {
    while (at < calls.length) {
      const call = calls[at] as Call
      at += 4
      call(calls[at - 3] as never, calls[at - 2] as never, calls[at - 1] as never)
    }
  } finally {
    if (at < calls.length) {
      // One of them threw: the others have their turn all the same.
      const rest = calls.slice(at)
      if (queue.length === 0) process.nextTick(run)
      queue = [...rest, ...queue]
    } else {
      calls.length = 0
      spare = calls
    }
  }
}
