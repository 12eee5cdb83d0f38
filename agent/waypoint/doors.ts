// What a waypoint listens on: HBONE, and the plaintext listeners of a Gateway. Must not live here: what is behind a door (listen/).
import { AmbitError } from '../base/errors.ts'
import { splitHostPort } from '../base/ip.ts'
import type { Logger } from '../base/log.ts'
import type { Listener } from '../io/connection.ts'
import { parsePlainListen, type PlainTarget } from './listen/plain.ts'
import type { ListenAt, Waypoint } from './waypoint.ts'

export interface Door {
  readonly at: { readonly host: string; readonly port: number }
  /** Absent: HBONE. */
  readonly plain?: PlainTarget
}

/** The doors that the flags ask for, HBONE first. Throws WAYPOINT_LISTEN_INVALID. */
export function doorsOf(options: { readonly listen: string; readonly http: readonly string[] }): readonly Door[] {
  const plains = options.http.map(parsePlainListen)
  return [{ at: addressOf(options.listen) }, ...plains.map((plain) => ({ at: addressOf(plain.listen), plain }))]
}

/** Opens a door at its address or on an inherited socket. */
export async function openDoor(waypoint: Waypoint, door: Door, where: ListenAt, log: Logger): Promise<Listener> {
  const { plain } = door
  const listener = plain ? await waypoint.listenHttp(where, plain) : await waypoint.listen(where)
  if (plain)
    log.info({ listen: listener.address, service: plain.service, port: plain.port }, 'serving HTTP in plaintext')
  else log.info({ listen: listener.address }, 'serving HBONE')
  return listener
}

function addressOf(text: string): { readonly host: string; readonly port: number } {
  const target = splitHostPort(text)
  if (target) return target
  throw new AmbitError('WAYPOINT_LISTEN_INVALID', `'${text}' is no address to listen on.`, {
    hint: 'Write HOST:PORT.',
  })
}
