// The last good resources on disk, so that a program that restarts while control is away goes on with what it knew.
// A file is whole or ignored: written beside and renamed, checked by a hash. Must not live here: keys or tokens.
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { AmbitError, messageOf } from '../base/errors.ts'
import { packAny } from './codec/workload.ts'
import type { HeldResource, ResourceKind } from './contract.ts'
import { DeltaDiscoveryResponseSchema } from './gen/envoy/service/discovery/v3/ads_pb.js'
import { kindOfTypeUrl, typeUrls } from './types.ts'

export type HeldState = ReadonlyMap<ResourceKind, ReadonlyMap<string, HeldResource>>

const MAGIC = Buffer.from('ambit-last-good-1\n')
const HASH_BYTES = 32
/** A mesh of a million workloads is below that; a bigger file is not ours. */
const MAX_BYTES = 512 * 1024 * 1024

/** Replaces the file, mode 0600. Rejects with STATE_NOT_WRITTEN; the old file stays whole then. */
export async function saveLastGood(file: string, state: HeldState): Promise<void> {
  const writer = new BinaryWriter()
  for (const [kind, held] of state) {
    const typeName = typeUrls[kind].slice('type.googleapis.com/'.length)
    const response = create(DeltaDiscoveryResponseSchema, {
      typeUrl: typeUrls[kind],
      resources: [...held].map(([name, { version, bytes }]) => ({ name, version, resource: packAny(typeName, bytes) })),
    })
    writer.bytes(toBinary(DeltaDiscoveryResponseSchema, response))
  }
  const body = writer.finish()
  // Several workers of one program may write at one time, or two agents in containers, where pids repeat; each its own view:
  // the last whole one stays.
  const temporary = `${file}.${process.pid}-${randomBytes(4).toString('hex')}.new`
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    const handle = await open(temporary, 'w', 0o600)
    try {
      await handle.writeFile(Buffer.concat([MAGIC, createHash('sha256').update(body).digest(), body]))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw new AmbitError(
      'STATE_NOT_WRITTEN',
      `The last good state could not be written to ${file}: ${messageOf(error)}`,
      {
        hint: 'Is the disk full, or the folder read-only? Until it is written, a restart without control starts from the older state.',
        cause: error,
      },
    )
  }
}

/** Undefined when there is none. Rejects with STATE_UNREADABLE for a file that is damaged or not ours. */
export async function loadLastGood(file: string): Promise<HeldState | undefined> {
  let content: Buffer
  try {
    content = await readFile(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw unreadable(file, messageOf(error))
  }
  const head = MAGIC.length + HASH_BYTES
  if (content.length < head || content.length > MAX_BYTES || !content.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw unreadable(file, 'it is not a state file of this version')
  }
  const body = content.subarray(head)
  if (!createHash('sha256').update(body).digest().equals(content.subarray(MAGIC.length, head))) {
    throw unreadable(file, 'its checksum is wrong')
  }
  const state = new Map<ResourceKind, Map<string, HeldResource>>()
  const reader = new BinaryReader(body)
  while (reader.pos < reader.len) {
    const response = fromBinary(DeltaDiscoveryResponseSchema, reader.bytes())
    const kind = kindOfTypeUrl(response.typeUrl)
    if (!kind) continue
    const held = new Map<string, HeldResource>()
    for (const { name, version, resource } of response.resources) {
      if (resource) held.set(name, { version, bytes: resource.value.slice() })
    }
    state.set(kind, held)
  }
  return state
}

function unreadable(file: string, why: string): AmbitError {
  return new AmbitError('STATE_UNREADABLE', `The last good state in ${file} cannot be used: ${why}.`, {
    hint: 'It is written anew once control answers; remove the file to silence this.',
  })
}
