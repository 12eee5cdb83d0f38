// A status that several write into: which part of it is Ambit's, and the whole with that part renewed and the others' as it was.
// Pure. Must not live here: what Ambit's part says (istio-status.ts, gateway-status.ts).
import { listOf, type Condition } from './conditions.ts'

type Status = Readonly<Record<string, unknown>>

/** Analysis messages of Ambit bear its codes; those of `istioctl analyze` begin with IST. */
const isOurs = (message: unknown): boolean =>
  String((message as { type?: { code?: unknown } } | null)?.type?.code).startsWith('CONFIG_')

const messagesOf = (status: Status): readonly unknown[] =>
  Array.isArray(status['validationMessages']) ? (status['validationMessages'] as unknown[]) : []

/**
 * What stands in `status` in the place of `next`: its fields, of conditions those of its types, of validation messages Ambit's.
 * Equal to `next` where nothing has to be written.
 */
export function speaksOf(status: Status, next: Status): Status {
  const found: Record<string, unknown> = {}
  for (const field of Object.keys(next)) if (status[field] !== undefined) found[field] = status[field]
  if (next['conditions'] !== undefined) {
    const types = typesOf(next)
    found['conditions'] = listOf(status['conditions']).filter((one) => types.has(one.type))
  }
  const messages = messagesOf(status).filter(isOurs)
  delete found['validationMessages']
  if (messages.length > 0) found['validationMessages'] = messages
  return found
}

/** `status` with Ambit's part as in `next`; `others` says whether anybody else's conditions or messages are in it. */
export function mergeStatus(status: Status = {}, next: Status): { readonly status: Status; readonly others: boolean } {
  const { validationMessages: _gone, ...rest } = status
  const types = typesOf(next)
  const conditions = listOf(status['conditions']).filter((one) => !types.has(one.type))
  const messages = messagesOf(status).filter((one) => !isOurs(one))
  const ours = messagesOf(next)
  return {
    status: {
      ...rest,
      ...next,
      ...(next['conditions'] === undefined ? {} : { conditions: [...conditions, ...listOf(next['conditions'])] }),
      ...(messages.length + ours.length > 0 ? { validationMessages: [...messages, ...ours] } : {}),
    },
    others: messages.length > 0 || (next['conditions'] !== undefined && conditions.length > 0),
  }
}

function typesOf(status: Status): ReadonlySet<string> {
  return new Set(listOf(status['conditions']).map((one: Condition) => one.type))
}
