import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { testRoot } from '../io/testcerts.ts'
import { RootFile } from './root-file.ts'

const first = testRoot('first').certificate
const second = testRoot('second').certificate

describe('the file with the roots', () => {
  let folder: string
  const clock = new ManualClock()
  const heard: string[] = []
  let roots: RootFile | undefined

  /** As a kubelet mounts a ConfigMap: a new folder of its own each time, and one link that is swapped. */
  let version = 0
  function mount(text: string): void {
    const data = join(folder, `..v${++version}`)
    mkdirSync(data)
    writeFileSync(join(data, 'root-cert.pem'), text)
    symlinkSync(`..v${version}`, join(folder, '..new'))
    renameSync(join(folder, '..new'), join(folder, '..data'))
    if (version > 1) rmSync(join(folder, `..v${version - 1}`), { recursive: true })
  }
  const look = async (): Promise<void> => {
    clock.advance(5_000)
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  const open = (log = silentLog): RootFile =>
    (roots = new RootFile({ file: join(folder, 'root-cert.pem'), clock, log, onChange: (pem) => heard.push(pem) }))

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-roots-'))
    version = 0
    heard.length = 0
    mount(first)
    symlinkSync('..data/root-cert.pem', join(folder, 'root-cert.pem'))
  })
  afterEach(() => {
    roots?.close()
    rmSync(folder, { recursive: true })
  })

  it('is read again when a mounted ConfigMap changes, once for each change', async () => {
    expect(open().roots).toBe(first)
    await look()
    expect(heard).toEqual([])
    mount(`${first}${second}`)
    await look()
    await look()
    expect(heard).toEqual([first + second])
    expect(roots!.roots).toBe(first + second)
  })

  it('stays what it was while it is away, empty or no certificate; that is said once', async () => {
    const warn = vi.fn()
    open({ ...silentLog, warn } as unknown as typeof silentLog)
    for (const text of ['', 'hello', '-----BEGIN CERTIFICATE-----\n']) {
      mount(text)
      await look()
      await look()
    }
    expect(warn).toHaveBeenCalledTimes(1)
    rmSync(join(folder, '..data'))
    await look()
    expect(roots!.roots).toBe(first)
    mount(second)
    await look()
    expect(heard).toEqual([second])
  })

  it('must be there at the start', () => {
    rmSync(join(folder, '..data'))
    expect(open).toThrow(expect.objectContaining({ code: 'ROOT_CERT_UNREADABLE' }) as Error)
    mount('hello')
    expect(open).toThrow('it has no PEM certificate')
  })
})
