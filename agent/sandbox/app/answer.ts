// What the echo app says about itself and about whom it saw: one JSON object, the same for every protocol it speaks.
// Must not live here: sockets and protocols (http.ts, tcp.ts, websocket.ts).

/** Who answers. Filled from flags and from the environment the sandbox gives a container. */
export interface Speaker {
  /** `--name`, else the `app` the sandbox names, else the pod's name. */
  readonly name: string
  readonly version: string
  readonly pod: string
  readonly namespace: string
  readonly node: string
}

export interface SocketEnds {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  readonly localAddress?: string | undefined
  readonly localPort?: number | undefined
}

export interface Answer extends Speaker {
  readonly protocol: string
  /** Who the app saw: the address `getpeername` gave. */
  readonly peer: { readonly address: string; readonly port: number }
  readonly local: { readonly address: string; readonly port: number }
  readonly method?: string
  readonly path?: string
  readonly host?: string
  /** Lower-case names; repeated fields joined with `, `. */
  readonly headers?: Readonly<Record<string, string>>
  /** Bytes of request body. */
  readonly bytes?: number
  /** The request body as text, when it is at most 4 KiB. */
  readonly body?: string
}

/** `::ffff:10.0.0.1` → `10.0.0.1`: a dual-stack listener shows IPv4 peers in mapped form. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return ''
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/** The ends of a socket as an answer names them. */
export function endsOf(socket: SocketEnds): Pick<Answer, 'peer' | 'local'> {
  return {
    peer: { address: plainAddress(socket.remoteAddress), port: socket.remotePort ?? 0 },
    local: { address: plainAddress(socket.localAddress), port: socket.localPort ?? 0 },
  }
}

/** Reads the speaker from the environment: POD_NAME, POD_NAMESPACE, NODE_NAME, APP_NAME, APP_VERSION. */
export function speakerOf(
  environment: Readonly<Record<string, string | undefined>>,
  flags: { name?: string | undefined; version?: string | undefined },
): Speaker {
  const pod = environment['POD_NAME'] ?? environment['HOSTNAME'] ?? 'echo'
  return {
    name: flags.name ?? environment['APP_NAME'] ?? pod,
    version: flags.version ?? environment['APP_VERSION'] ?? '',
    pod,
    namespace: environment['POD_NAMESPACE'] ?? '',
    node: environment['NODE_NAME'] ?? '',
  }
}
