// One watch: a connection on which the API server tells what happens after a version. Must not live here: what to do when it
// ends (reflector.ts).
import { messageOf } from '../base/errors.ts'
import type { KubeClient } from './client.ts'
import { errorOf, KubeError } from './errors.ts'
import { Lines } from './lines.ts'
import { pathOf, type KubeObject, type Resource } from './resource.ts'

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK'
  readonly object: KubeObject
}

/** Which objects of a kind. */
export interface Scope {
  readonly resource: Resource
  /** Of all namespaces when absent. */
  readonly namespace?: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
}

export interface WatchOptions extends Scope {
  readonly resourceVersion: string
  /** The server ends it after this. */
  readonly timeoutSeconds: number
  /** A connection on which nothing comes for so long is taken for dead; bookmarks come every minute. Milliseconds. */
  readonly idleMs: number
  readonly signal: AbortSignal
  readonly onOpen: () => void
  /** What one piece of the stream held, in order. A KubeError thrown ends the watch with it. */
  readonly onEvents: (events: readonly WatchEvent[]) => void
}

/** An object is at most 1.5 MB in etcd; as JSON, with managed fields, never ten times that. */
const MAX_LINE = 16 * 1024 * 1024

/** Resolves when the server ends the watch in order. Throws KubeError; KUBE_GONE when the version is too old to go on from. */
export async function watch(client: KubeClient, options: WatchOptions): Promise<void> {
  const { resource, namespace, signal } = options
  const path = pathOf(resource, namespace)
  const what = `watch of ${path}`
  const response = await client.open({
    path,
    query: {
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: options.resourceVersion,
      timeoutSeconds: options.timeoutSeconds,
      labelSelector: options.labelSelector,
      fieldSelector: options.fieldSelector,
    },
    signal,
  })
  response.setTimeout(options.idleMs)
  const status = response.statusCode ?? 0
  const lines = new Lines(MAX_LINE)
  let refusal = ''
  if (status < 300) options.onOpen()
  await new Promise<void>((resolve, reject) => {
    const fail = (error: KubeError): void => {
      reject(error)
      response.destroy()
    }
    response.on('data', (chunk: Buffer) => {
      if (status >= 300) {
        if (refusal.length < 65_536) refusal += chunk.toString()
        return
      }
      const events: WatchEvent[] = []
      let error: KubeError | undefined
      try {
        for (const line of lines.push(chunk)) {
          if (line === '') continue
          const event = JSON.parse(line) as { type: string; object: KubeObject & { code?: number } }
          if (event.type === 'ERROR') {
            error = errorOf(what, event.object.code ?? 500, event.object)
            break
          }
          events.push(event as WatchEvent)
        }
      } catch (cause) {
        error = new KubeError('KUBE_SERVER_ERROR', `${what}: a line that is no event`, { cause })
      }
      // What came before the error happened all the same.
      try {
        if (events.length > 0) options.onEvents(events)
      } catch (cause) {
        error =
          cause instanceof KubeError
            ? cause
            : new KubeError('KUBE_SERVER_ERROR', `${what}: ${messageOf(cause)}`, { cause })
      }
      if (error) fail(error)
    })
    response.on('end', () => {
      if (status < 300) return resolve()
      let body: unknown
      try {
        body = JSON.parse(refusal)
      } catch {
        body = { message: refusal.slice(0, 200).trim() }
      }
      reject(errorOf(what, status, body, response.headers['retry-after']))
    })
    response.on('error', (cause) =>
      reject(
        signal.aborted
          ? new KubeError('KUBE_STOPPED', 'stopped')
          : new KubeError('KUBE_UNREACHABLE', `${what}: cut off: ${cause.message}`, { cause }),
      ),
    )
  })
}
