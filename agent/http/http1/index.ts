// What other rooms import of HTTP/1.x. Must not live here: code.
export type * from './contract.ts'
export { http1Client } from './client.ts'
export { http1Server } from './server.ts'
