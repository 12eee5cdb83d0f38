// HTTP/2 (RFC 9113) over any connection of agent/io: what the rest of the agent imports.
export { connectHttp2, http2Client, http2ClientHandler } from './client.ts'
export type {
  Http2ClientSession,
  Http2Feed,
  Http2Options,
  Http2Server,
  Http2Session,
  ServerSessionEvents,
} from './contract.ts'
export { Http2ConnectionError } from './error.ts'
export { http2Server, sessionOf } from './server.ts'
export {
  acceptTunnel,
  onUndecidedClose,
  openTunnel,
  refuseTunnel,
  tunnelHeaders,
  TunnelRefused,
  tunnelServer,
  type OnTunnel,
  type TunnelInfo,
} from './tunnel.ts'
