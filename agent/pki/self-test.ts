// Whether what an authority issues is believed by those who trust its roots: OpenSSL itself is asked, by a handshake of TLS in
// memory, so that path lengths, key usages, name constraints and dates of certificates that people brought are judged by who
// will judge them in the mesh. Must not live here: issuing (authority.ts).
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { messageOf } from '../base/errors.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Authority } from './authority.ts'
import { mergePem } from './bundle.ts'
import { makeRequest } from './csr.ts'

const SECONDS = 600
/** It is computation only. */
const TIMEOUT_MS = 5_000

/** Resolves with '' if both kinds of certificates hold under its trust bundle, else with OpenSSL's reason. */
export async function selfTest(authority: Authority, identity: Identity, serverName: string): Promise<string> {
  try {
    const server = await authority.serverCertificate([serverName], SECONDS)
    const { csr, key } = await makeRequest(identity)
    const chain = await authority.issue(csr, identity, SECONDS)
    const client = { certificate: mergePem(...chain.slice(0, -1)), key }
    return await handshake(authority.trustBundle, server, client, serverName)
  } catch (error) {
    return messageOf(error)
  }
}

interface Pair {
  readonly certificate: string
  readonly key: string
}

async function handshake(ca: string, server: Pair, client: Pair, servername: string): Promise<string> {
  const [near, far] = duplexPair()
  const serving = createServer({
    ca,
    cert: server.certificate,
    key: server.key,
    requestCert: true,
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
  })
  let asking: TLSSocket | undefined
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<string>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`no handshake within ${TIMEOUT_MS} ms`)), TIMEOUT_MS)
      const asked = connect({
        socket: near,
        servername,
        ca,
        cert: client.certificate,
        key: client.key,
        rejectUnauthorized: false,
        minVersion: 'TLSv1.3',
      })
      asking = asked
      const judged = [once(serving, 'secureConnection'), once(asked, 'secureConnect')]
      serving.on('tlsClientError', reject)
      serving.emit('connection', far)
      Promise.all(judged).then(([accepted]) => resolve(reasonOf(asked) || reasonOf(accepted?.[0] as TLSSocket)), reject)
    })
  } finally {
    clearTimeout(timer)
    asking?.destroy()
    near.destroy()
    far.destroy()
  }
}

/** OpenSSL's name of what is wrong, as in CERT_HAS_EXPIRED; '' where nothing is. */
function reasonOf(socket: TLSSocket | undefined): string {
  const error: unknown = socket?.authorizationError
  if (error === null || error === undefined) return ''
  const code = typeof error === 'string' ? error : ((error as { code?: string }).code ?? messageOf(error))
  // Node has no name for these.
  return code === 'UNSPECIFIED' ? 'a name constraint excludes it, or the like' : code
}
