// Says what is wrong with a destination of a route: no such service, port or subset.
import type { Context } from './context.ts'
import type { FieldPath, Resource } from './resource.ts'

export interface WrittenDestination {
  /** As written. */
  readonly host: string
  /** Completed. */
  readonly full: string
  readonly subset: string
  /** 0: not given. */
  readonly port: number
}

/** `path` is that of the destination's own map. */
export function reportDestination(
  context: Context,
  resource: Resource,
  destination: WrittenDestination,
  path: FieldPath,
): void {
  const { host, full, subset, port } = destination
  const service = context.services.get(full)
  if (!service) {
    context.report(resource, {
      severity: 'error',
      code: 'CONFIG_UNKNOWN_HOST',
      path: [...path, 'host'],
      message: `${host} is no service of the mesh: requests sent there are answered 503.`,
      hint: context.hostHint(full, resource),
    })
    return
  }
  const ports = service.ports.map((one) => one.port)
  if (port !== 0 && !ports.includes(port)) {
    context.report(resource, {
      severity: 'error',
      code: 'CONFIG_UNKNOWN_PORT',
      path: [...path, 'port', 'number'],
      message: `${full} has no port ${port}.`,
      hint: `Its ports: ${ports.join(', ') || 'none'}.`,
    })
  } else if (port === 0 && ports.length > 1) {
    context.report(resource, {
      severity: 'warning',
      code: 'CONFIG_UNKNOWN_PORT',
      path,
      message: `${full} has several ports and the destination names none: the one the client used is taken.`,
      hint: `Add port: {number: …}, one of ${ports.join(', ')}.`,
    })
  }
  if (subset === '') return
  const declared = context.subsetsOf(full)
  if (declared.has(subset)) return
  context.report(resource, {
    severity: 'error',
    code: 'CONFIG_UNKNOWN_SUBSET',
    path: [...path, 'subset'],
    message: `${full} has no subset ${subset}: requests sent there are answered 503.`,
    hint:
      declared.size > 0
        ? `Declared subsets: ${[...declared].join(', ')}.`
        : `Declare it in a DestinationRule with host: ${full}.`,
  })
}
