// A task that can be interrupted by Ctrl-C or SIGTERM and then still tidies up. Must not live here: what it tidies.

/** Runs the task with a signal that the first SIGINT or SIGTERM fires; a second one ends the process as ever. */
export async function interruptible<T>(task: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const stop = (): void => {
    off()
    controller.abort()
  }
  const off = (): void => {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  try {
    return await task(controller.signal)
  } finally {
    off()
  }
}
