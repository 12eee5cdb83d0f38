// The transport that the bench's own programs use: the one the mesh's programs use. Must not live here: code.
export { transport } from '../../../agent/io/index.ts'
