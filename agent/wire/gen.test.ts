import { expect, it } from 'vitest'
import { generateAll } from '../../deploy/gen.ts'

it('commits exactly what the protos generate', { timeout: 60_000 }, async () => {
  expect(await generateAll({ check: true, only: 'protobuf' })).toEqual([])
})
