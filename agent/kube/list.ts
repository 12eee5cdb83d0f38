// A list of all objects of a kind, page by page, so that neither side holds all of it at once. Must not live here: keeping
// objects (reflector.ts).
import type { KubeClient } from './client.ts'
import { KubeError } from './errors.ts'
import { pathOf, type KubeObject } from './resource.ts'
import type { Scope } from './watch.ts'

interface Page {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
  readonly items?: readonly KubeObject[] | null
}

export interface ListOptions extends Scope {
  readonly pageSize: number
  readonly signal?: AbortSignal
  readonly onPage: (items: readonly KubeObject[]) => void
}

/** Below this a page is not made smaller any more. */
const MIN_PAGE = 10

/**
 * Hands over every object; resolves with the version to watch from. When the list takes so long that the server forgets the
 * state it began with (410), it goes on with the newest state, and the version is still that of the first page: a watch
 * from there tells what the first pages missed. Throws KubeError.
 */
export async function list(client: KubeClient, options: ListOptions): Promise<string> {
  const { resource, namespace, labelSelector, fieldSelector, signal } = options
  let limit = options.pageSize
  let token: string | undefined
  let version: string | undefined
  for (;;) {
    let page: Page
    try {
      page = await client.ask<Page>({
        path: pathOf(resource, namespace),
        query: { limit, continue: token, labelSelector, fieldSelector },
        ...(signal ? { signal } : {}),
      })
    } catch (error) {
      if (error instanceof KubeError && error.code === 'KUBE_TOO_LARGE' && limit > MIN_PAGE) {
        limit = Math.max(MIN_PAGE, limit >> 2)
        continue
      }
      if (error instanceof KubeError && error.status === 410 && error.continueToken && error.continueToken !== token) {
        token = error.continueToken
        continue
      }
      throw error
    }
    version ??= page.metadata?.resourceVersion
    options.onPage(page.items ?? [])
    token = page.metadata?.continue
    if (!token) break
  }
  if (version === undefined)
    throw new KubeError('KUBE_SERVER_ERROR', `list of ${pathOf(resource, namespace)}: no version`)
  return version
}
