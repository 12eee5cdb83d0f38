import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { parsePod, Registry } from './registry.ts'
import { Folder } from './testing.ts'

describe('the registry of pods', () => {
  let folder: Folder
  const open = (): Registry => new Registry(join(folder.path, 'state'), silentLog)

  beforeEach(() => {
    folder = new Folder()
  })
  afterEach(() => folder.remove())

  it('remembers pods over a restart, readable by its owner only', () => {
    const pod = folder.pod('web')
    open().add(pod)
    const again = open()
    expect([...again.pods.values()]).toEqual([pod])
    expect(again.alive(pod)).toBe(true)
    expect(statSync(join(folder.path, 'state/pods.json')).mode & 0o777).toBe(0o600)
    expect(statSync(join(folder.path, 'state')).mode & 0o777).toBe(0o700)
    expect(again.remove(pod.uid)).toBe(true)
    expect(again.remove(pod.uid)).toBe(false)
    expect(open().pods.size).toBe(0)
  })

  it('knows a namespace again by what it is, not by its path', () => {
    const pod = folder.pod('web')
    open().add(pod)
    expect(open().alive(pod)).toBe(true)
    // Made while the old one is still there, so that it cannot get the same inode.
    const heir = join(folder.path, 'heir')
    writeFileSync(heir, '')
    rmSync(pod.netns)
    expect(open().alive(pod)).toBe(false)
    renameSync(heir, pod.netns)
    expect(open().alive(pod)).toBe(false)
  })

  it('refuses a pod without a namespace', () => {
    expect(() => open().add(folder.pod('web', { netns: '/run/netns/no-such' }))).toThrowError(
      expect.objectContaining({ code: 'ENROLL_NO_NAMESPACE' }),
    )
  })

  it('sets a damaged file aside and starts empty', () => {
    open().add(folder.pod('web'))
    const file = join(folder.path, 'state/pods.json')
    writeFileSync(file, readFileSync(file, 'utf8').slice(0, 20))
    expect(open().pods.size).toBe(0)
    expect(existsSync(`${file}.bad`)).toBe(true)
    expect(existsSync(file)).toBe(false)
  })
})

describe('what is told of a pod', () => {
  const good = { uid: 'u-1', namespace: 'shop', name: 'web', netns: '/run/netns/x', addresses: ['10.0.0.1'] }

  it('comes out in canonical form, without what was not asked for', () => {
    const pod = parsePod({ ...good, op: 'add', addresses: ['::ffff:10.0.0.1', 'FD00:0::1'] })
    expect(pod).toEqual({ ...good, addresses: ['10.0.0.1', 'fd00::1'] })
    expect(parsePod({ ...good, sandbox: 'c0ffee' })).toEqual({ ...good, sandbox: 'c0ffee' })
  })

  it.each([
    ['uid', 'a/b'],
    ['uid', ''],
    ['uid', 'x'.repeat(129)],
    ['uid', 5],
    ['namespace', 'Shop'],
    ['name', '../etc'],
    ['sandbox', ''],
    ['sandbox', '../x'],
    ['sandbox', 5],
    ['netns', 'relative'],
    ['netns', '/a\0b'],
    ['addresses', []],
    ['addresses', 'x'],
    ['addresses', ['10.0.0.256']],
    ['addresses', Array(17).fill('10.0.0.1')],
  ])('is refused when %s is %j', (field, value) => {
    expect(() => parsePod({ ...good, [field]: value })).toThrowError(
      expect.objectContaining({ code: 'ENROLL_BAD_REQUEST', message: expect.stringContaining(field) as string }),
    )
  })

  it.each([null, 5, 'x', []])('is refused when it is %j', (value) => {
    expect(() => parsePod(value)).toThrowError(expect.objectContaining({ code: 'ENROLL_BAD_REQUEST' }))
  })
})
