// Writing to the API server: server-side apply with one field manager, so that what others wrote into the same object stays
// theirs; removal only of what is meant. Must not live here: what is written (control/).
import type { KubeClient } from './client.ts'
import { KubeError } from './errors.ts'
import { apiVersionOf, pathOf, type KubeObject, type Place, type Resource } from './resource.ts'

/** Owns every field that Ambit writes, in the main object and in its status. */
export const FIELD_MANAGER = 'ambit'

export interface ApplyOptions {
  /** `status`, for conditions. */
  readonly sub?: 'status'
  /** Takes fields from other managers that set them too; else KUBE_CONFLICT names them. Default true: what Ambit writes is Ambit's. */
  readonly force?: boolean
  /** Checks everything, changes nothing. */
  readonly dryRun?: boolean
}

/**
 * Makes the object, or makes these fields of it so. What Ambit applied before and leaves out now is removed; fields of
 * others are not touched. Resolves with the object as it is now. Throws KubeError.
 */
export function apply<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  object: T,
  options: ApplyOptions = {},
): Promise<T> {
  const { namespace, name } = object.metadata
  return client.ask<T>({
    method: 'PATCH',
    path: pathOf(resource, namespace, name, options.sub),
    query: {
      fieldManager: FIELD_MANAGER,
      force: options.force ?? true,
      dryRun: options.dryRun ? 'All' : undefined,
    },
    // JSON is YAML.
    contentType: 'application/apply-patch+yaml',
    body: { ...object, apiVersion: apiVersionOf(resource), kind: resource.kind },
  })
}

function timed(timeoutMs: number | undefined): { timeoutMs?: number } {
  return timeoutMs === undefined ? {} : { timeoutMs }
}

/** Undefined when there is none. Throws KubeError for everything else. */
export async function read<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  { namespace, name }: Place,
  timeoutMs?: number,
): Promise<T | undefined> {
  try {
    return await client.ask<T>({ path: pathOf(resource, namespace, name), ...timed(timeoutMs) })
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return undefined
    throw error
  }
}

export function create<T extends KubeObject>(client: KubeClient, resource: Resource, object: T): Promise<T> {
  return client.ask<T>({
    method: 'POST',
    path: pathOf(resource, object.metadata.namespace),
    query: { fieldManager: FIELD_MANAGER },
    body: { ...object, apiVersion: apiVersionOf(resource), kind: resource.kind },
  })
}

/** Replaces the object; with a resourceVersion in it only if nobody changed it since (KUBE_CONFLICT). */
export function replace<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  object: T,
  timeoutMs?: number,
): Promise<T> {
  return client.ask<T>({
    ...timed(timeoutMs),
    method: 'PUT',
    path: pathOf(resource, object.metadata.namespace, object.metadata.name),
    query: { fieldManager: FIELD_MANAGER },
    body: { ...object, apiVersion: apiVersionOf(resource), kind: resource.kind },
  })
}

/** Replaces the status alone; with a resourceVersion only if nobody changed the object since (KUBE_CONFLICT). */
export function replaceStatus<T extends KubeObject>(client: KubeClient, resource: Resource, object: T): Promise<T> {
  return client.ask<T>({
    method: 'PUT',
    path: pathOf(resource, object.metadata.namespace, object.metadata.name, 'status'),
    query: { fieldManager: FIELD_MANAGER },
    body: { ...object, apiVersion: apiVersionOf(resource), kind: resource.kind },
  })
}

/** Changes these fields of an object that is there, others' or not (RFC 7386). Resolves with the object as it is now. */
export function merge<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  { namespace, name }: Place,
  fields: object,
): Promise<T> {
  return client.ask<T>({
    method: 'PATCH',
    path: pathOf(resource, namespace, name),
    query: { fieldManager: FIELD_MANAGER },
    contentType: 'application/merge-patch+json',
    body: fields,
  })
}

/** Removes it, and only the one with this uid when it is given. False when there is none such any more. */
export async function remove(
  client: KubeClient,
  resource: Resource,
  { namespace, name, uid }: Place & { readonly uid?: string | undefined },
): Promise<boolean> {
  try {
    await client.ask({
      method: 'DELETE',
      path: pathOf(resource, namespace, name),
      body: {
        apiVersion: 'v1',
        kind: 'DeleteOptions',
        propagationPolicy: 'Background',
        ...(uid === undefined ? {} : { preconditions: { uid } }),
      },
    })
    return true
  } catch (error) {
    // 409: another object has the name by now.
    if (error instanceof KubeError && (error.status === 404 || (uid !== undefined && error.status === 409)))
      return false
    throw error
  }
}
