// libbpf-ts: eBPF for Node in the manner of libbpf below and of JavaScript above. This is its whole public face; see
// README.md for examples. Must not live here: code, or anything that knows what a mesh is.
export { BpfError, VerifierError } from './errors.ts'
export { openObject } from './object.ts'
export type { BpfModule, BpfObject, LoadOptions, MapConfig, MapFor, ObjectSchema, ProgramConfig } from './object.ts'
export { enableStats, openPinnedLink, openPinnedProgram, openProgramById } from './program.ts'
export type {
  AttachInterfaceOptions,
  CgroupOrder,
  IterateOptions,
  Link,
  LinkInfo,
  Program,
  ProgramStatistics,
  StatisticsHandle,
  TestRunOptions,
  TestRunResult,
} from './program.ts'
export { createLpmMap, createMap, createPerCpuMap, openPinnedBytes, openPinnedMap, openPinnedPerCpuMap } from './map.ts'
export type { BpfMap, LpmMap, MapOptions, MapSchema, PerCpuMap, SocketMap } from './map.ts'
export type { MapHandle, MapShape, UpdateMode } from './keyed.ts'
export type { BatchOptions, EntryMap, SetManyOptions } from './batch.ts'
export { createMapOfMaps } from './nested.ts'
export type { InnerMap, MapOfMaps } from './nested.ts'
export type { RawBatch, RingListener, RingMap, RingOptions } from './ring.ts'
export { hasFeature, probeFeatures } from './features.ts'
export type { FeatureName } from './features.ts'
export * as codec from './codec.ts'
export type { Codec, ValueOf } from './codec.ts'
export { ensureBpffs, isBpffs } from './pins.ts'
export { readSealed, sealedMemory } from './memory.ts'
export {
  cgroupId,
  closeFd,
  dupFd,
  interfacesIn,
  netnsCookie,
  openNetns,
  packetSocket,
  peerName,
  recvFds,
  sendFds,
  socketCookie,
  socketIn,
  socketListens,
  socketName,
  socketNetns,
  socketPair,
} from './sockets.ts'
export type { NetworkInterface, ReceivedFds, SocketAddress, SocketInOptions } from './sockets.ts'
export { packAddress, unpackAddress } from './sockaddr.ts'
