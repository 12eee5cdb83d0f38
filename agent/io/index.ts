// What other rooms import of io: the contract and the transport in use. Must not live here: code.
export type * from './connection.ts'
export { createNodeTransport, nodeTransport, type NodeTransportOptions } from './node/transport.ts'
