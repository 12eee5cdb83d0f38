// TLS over an already made socket, both sides: contexts are built once per certificate, resumption is off, the chain is
// OpenSSL's to judge and the identity `verify`'s. Must not live here: certificates and trust (pki/), sockets (transport.ts).
import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import { connect, createSecureContext, TLSSocket, type SecureContext } from 'node:tls'
import type { Endpoint, KeyPair, TlsSettings } from '../connection.ts'
import { chainError } from './internals.ts'

/** What a finished and allowed handshake gives. */
export interface Handshake {
  readonly alpn: string
  readonly serverName: string
  readonly certificates: readonly Uint8Array[]
}

interface CachedContext {
  readonly trust: string
  readonly minVersion: string
  readonly context: SecureContext
}

/** Parsing PEM costs about a millisecond: one context per key pair, dropped with it, rebuilt when the trust bundle changes. */
const contexts = new WeakMap<KeyPair, CachedContext>()

function contextFor(pair: KeyPair, settings: TlsSettings): SecureContext {
  const trust = settings.trust()
  const minVersion = settings.minVersion ?? 'TLSv1.3'
  const cached = contexts.get(pair)
  if (cached?.trust === trust && cached.minVersion === minVersion) return cached.context
  const context = createSecureContext({
    cert: pair.certificate,
    key: pair.key,
    ca: trust,
    minVersion,
    // No tickets: a session must never outlive a certificate or cross workloads, and Node judges a resumed one by itself.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  })
  contexts.set(pair, { trust, minVersion, context })
  return context
}

/** Certificates as DER, leaf first, as the peer sent them. Bound: 16, far beyond any real chain. */
function peerChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let certificate = socket.getPeerX509Certificate()
  while (certificate && chain.length < 16) {
    chain.push(certificate.raw)
    const issuer = certificate.issuerCertificate
    if (!issuer || issuer === certificate) break
    certificate = issuer
  }
  return chain
}

async function judge(
  socket: TLSSocket,
  settings: TlsSettings,
  serverName: string,
  peer: Endpoint,
  local: Endpoint,
): Promise<Handshake> {
  const certificates = peerChain(socket)
  await settings.verify({ certificates, serverName, endpoint: peer, local })
  return { alpn: socket.alpnProtocol || '', serverName, certificates }
}

/**
 * Server side over a socket of which nothing was read yet. `attach` gets the TLS socket at once.
 * A client without SNI (HBONE sends none) gets `certificate('')`, so that one is resolved before the first byte is read; with SNI
 * the certificate is asked for again by name.
 */
export async function acceptTls(
  raw: Socket,
  settings: TlsSettings,
  peer: Endpoint,
  local: Endpoint,
  attach: (tls: TLSSocket) => void,
): Promise<Handshake> {
  let fallback: unknown
  let refusal: unknown
  let context: SecureContext
  try {
    context = contextFor(await settings.certificate(''), settings)
  } catch (error) {
    // Perhaps the client names itself; without a name the handshake fails, and this is why.
    fallback = error
    context = createSecureContext({ ca: settings.trust(), minVersion: settings.minVersion ?? 'TLSv1.3' })
  }
  if (raw.destroyed) throw new Error('the peer went away')
  const wantsCertificate = settings.requestCertificate ?? true
  let serverName = ''
  const tls = new TLSSocket(raw, {
    isServer: true,
    secureContext: context,
    requestCert: wantsCertificate,
    rejectUnauthorized: wantsCertificate,
    ...(settings.alpn.length > 0 ? { ALPNProtocols: [...settings.alpn] } : {}),
    SNICallback: (name, answer) => {
      serverName = name
      Promise.resolve()
        .then(() => settings.certificate(name))
        .then(
          (pair) => answer(null, contextFor(pair, settings)),
          (error: unknown) => {
            refusal = error
            answer(error instanceof Error ? error : new Error(String(error)))
          },
        )
    },
  })
  attach(tls)
  try {
    await settled(tls, 'secure')
  } catch (error) {
    throw refusal ?? (serverName === '' ? fallback : undefined) ?? error
  }
  if (wantsCertificate) {
    const error = chainError(tls)
    if (error) throw error
  }
  return judge(tls, settings, serverName, peer, local)
}

/** Client side over a connected socket. */
export async function connectTls(
  raw: Socket,
  settings: TlsSettings,
  peer: Endpoint,
  local: Endpoint,
  attach: (tls: TLSSocket) => void,
): Promise<Handshake> {
  const serverName = settings.serverName ?? ''
  const secureContext = contextFor(await settings.certificate(serverName), settings)
  if (raw.destroyed) throw new Error('the peer went away')
  const tls = connect({
    socket: raw,
    secureContext,
    rejectUnauthorized: true,
    ...(serverName ? { servername: serverName } : {}),
    ...(settings.alpn.length > 0 ? { ALPNProtocols: [...settings.alpn] } : {}),
    // Identities are URIs and judged by `verify`; host names mean nothing here.
    checkServerIdentity: () => undefined,
  })
  attach(tls)
  await settled(tls, 'secureConnect')
  if (!tls.authorized) throw tls.authorizationError
  return judge(tls, settings, serverName, peer, local)
}

function settled(tls: TLSSocket, event: 'secure' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    tls.once(event, () => resolve())
    tls.once('_tlsError', reject)
    tls.once('error', reject)
    tls.once('close', () => reject(new Error('the peer closed the connection during the handshake')))
  })
}
