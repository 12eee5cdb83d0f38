// In real folders with real watches; only the clock that looks without a cause is a test's.
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { openLog, silentLog } from '../../base/log.ts'
import { CniKeeper, removeFromConflist } from './keeper.ts'

const entry = { socket: '/run/ambit/agent.sock', exemptNamespaces: ['ambit-system'] }
const mine = { type: 'ambit-cni', ...entry }
const calico = '{\n  "name": "k8s", "cniVersion": "0.3.1",\n  "plugins": [\n    {"type": "calico", "mtu": 0}\n  ]\n}\n'
const bridge = '{ "cniVersion": "0.4.0", "name": "old", "type": "bridge", "mtu": 1.50e3 }\n'

describe('the keeper of the conflist', () => {
  let folder: string
  let confDir: string
  let binDir: string
  let program: string
  let clock: ManualClock
  let leads: boolean
  const keepers: CniKeeper[] = []

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-keeper-'))
    confDir = join(folder, 'net.d')
    binDir = join(folder, 'bin')
    program = join(folder, 'program')
    mkdirSync(confDir)
    mkdirSync(binDir)
    writeFileSync(program, 'the plugin')
    clock = new ManualClock(Date.now())
    leads = true
  })
  afterEach(async () => {
    for (const keeper of keepers.splice(0)) await keeper.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const put = (name: string, text: string): void => writeFileSync(join(confDir, name), text)
  const get = (name: string): string => readFileSync(join(confDir, name), 'utf8')
  const typesIn = (name: string): string[] =>
    (JSON.parse(get(name)) as { plugins: { type: string }[] }).plugins.map(({ type }) => type)
  async function start(change: object = {}): Promise<CniKeeper> {
    const keeper = new CniKeeper({
      confDir,
      binDir,
      entry,
      program,
      leads: () => leads,
      clock,
      log: silentLog,
      ...change,
    })
    keepers.push(keeper)
    await keeper.start()
    return keeper
  }
  /** Waits for what a watch brings about. */
  async function until(what: () => boolean): Promise<void> {
    const end = performance.now() + 10_000
    while (!what()) {
      if (performance.now() > end) throw new Error(`never: ${what.toString()} ${readdirSync(confDir).join(' ')}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  const chained = (name: string) => (): boolean => {
    try {
      return typesIn(name).includes('ambit-cni')
    } catch {
      return false
    }
  }

  it('installs the plugin and chains it into the first list, with its owner and mode', async () => {
    put('10-calico.conflist', calico)
    put('20-other.conflist', calico)
    put('00-note.txt', calico)
    chmodSync(join(confDir, '10-calico.conflist'), 0o640)
    const keeper = await start()
    expect(readFileSync(join(binDir, 'ambit-cni'), 'utf8')).toBe('the plugin')
    expect(statSync(join(binDir, 'ambit-cni')).mode & 0o777).toBe(0o755)
    expect(JSON.parse(get('10-calico.conflist'))).toEqual({
      ...(JSON.parse(calico) as object),
      plugins: [{ type: 'calico', mtu: 0 }, mine],
    })
    expect(statSync(join(confDir, '10-calico.conflist')).mode & 0o777).toBe(0o640)
    expect(get('20-other.conflist')).toBe(calico)
    expect(keeper.status).toEqual({
      chained: true,
      file: join(confDir, '10-calico.conflist'),
      problem: undefined,
      written: 1,
    })
    // Nothing else is left there.
    expect(readdirSync(confDir).sort()).toEqual(['00-note.txt', '10-calico.conflist', '20-other.conflist'])
  })

  it('writes nothing where all is as it should be', async () => {
    put('10-calico.conflist', calico)
    await (await start()).close()
    const before = statSync(join(confDir, '10-calico.conflist'), { bigint: true })
    const installed = statSync(join(binDir, 'ambit-cni'), { bigint: true })
    const keeper = await start()
    expect(keeper.status).toMatchObject({ chained: true, written: 0 })
    expect(statSync(join(confDir, '10-calico.conflist'), { bigint: true })).toEqual(before)
    expect(statSync(join(binDir, 'ambit-cni'), { bigint: true })).toMatchObject({ ino: installed.ino })
  })

  it('stays when the agent ends', async () => {
    put('10-calico.conflist', calico)
    await (await start()).close()
    expect(chained('10-calico.conflist')()).toBe(true)
    expect(existsSync(join(binDir, 'ambit-cni'))).toBe(true)
  })

  it('puts itself back after others write, in whatever way', async () => {
    put('10-calico.conflist', calico)
    await start()
    const changed = calico.replace('"mtu": 0', '"mtu": 9000')
    // In one step, as it should be.
    writeFileSync(join(confDir, 'new'), changed)
    renameSync(join(confDir, 'new'), join(confDir, '10-calico.conflist'))
    await until(chained('10-calico.conflist'))
    expect(get('10-calico.conflist')).toContain('9000')
    // Cut and written in pieces.
    put('10-calico.conflist', '')
    put('10-calico.conflist', calico.slice(0, 40))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(get('10-calico.conflist')).toBe(calico.slice(0, 40))
    put('10-calico.conflist', calico)
    await until(chained('10-calico.conflist'))
    // Removed and made again.
    rmSync(join(confDir, '10-calico.conflist'))
    put('10-calico.conflist', calico)
    await until(chained('10-calico.conflist'))
    // The program too.
    rmSync(join(binDir, 'ambit-cni'))
    await until(() => existsSync(join(binDir, 'ambit-cni')))
    writeFileSync(join(binDir, 'ambit-cni'), 'something else')
    await until(() => readFileSync(join(binDir, 'ambit-cni'), 'utf8') === 'the plugin')
  })

  it('follows the node to another configuration', async () => {
    const keeper = await start()
    expect(keeper.status).toMatchObject({ chained: false, problem: { code: 'CNI_NO_NETWORK' } })
    put('10-calico.conflist', calico)
    await until(chained('10-calico.conflist'))
    put('05-cilium.conflist', calico.replace('calico', 'cilium-cni'))
    await until(chained('05-cilium.conflist'))
    // The runtime may go back to the other at any time.
    expect(chained('10-calico.conflist')()).toBe(true)
    await keeper.settled()
    expect(keeper.status).toMatchObject({ chained: true, file: join(confDir, '05-cilium.conflist') })
  })

  it('looks from time to time, whatever the watches see', async () => {
    put('10-calico.conflist', calico)
    const keeper = await start()
    // Folders that were put in the place of those that are watched.
    rmSync(confDir, { recursive: true })
    mkdirSync(confDir)
    await keeper.settled()
    put('10-calico.conflist', calico)
    await new Promise((resolve) => setTimeout(resolve, 30))
    clock.advance(10_000)
    await until(chained('10-calico.conflist'))
    put('10-calico.conflist', calico)
    await until(chained('10-calico.conflist'))
  })

  it('makes a list of a configuration of the old form, which stays', async () => {
    put('10-bridge.conf', bridge)
    put('99-loopback.conf', '{"cniVersion":"0.4.0","name":"lo","type":"loopback"}')
    const keeper = await start()
    const made = '10-bridge.ambit.conflist'
    expect(get('10-bridge.conf')).toBe(bridge)
    expect(JSON.parse(get(made))).toEqual({ cniVersion: '0.4.0', name: 'old', plugins: [JSON.parse(bridge), mine] })
    // It comes first.
    expect(readdirSync(confDir).sort()[0]).toBe(made)
    expect(readdirSync(confDir)).toHaveLength(3)
    expect(keeper.status).toMatchObject({ chained: true, file: join(confDir, made) })
    // It follows the original, and goes with it.
    put('10-bridge.conf', bridge.replace('1.50e3', '9000'))
    await until(() => get(made).includes('9000'))
    rmSync(join(confDir, '10-bridge.conf'))
    await until(() => !existsSync(join(confDir, made)))
    await until(chained('99-loopback.ambit.conflist'))
    // One that is not the first is not kept.
    put('10-calico.conflist', calico)
    await until(() => !existsSync(join(confDir, '99-loopback.ambit.conflist')))
    await until(chained('10-calico.conflist'))
  })

  it('keeps what others chain into the list it made', async () => {
    put('10-bridge.conf', bridge)
    await start()
    const made = '10-bridge.ambit.conflist'
    const list = JSON.parse(get(made)) as { plugins: object[] }
    put(made, JSON.stringify({ ...list, plugins: [...list.plugins, { type: 'istio-cni' }] }))
    put('10-bridge.conf', bridge.replace('1.50e3', '9000'))
    await until(() => get(made).includes('9000'))
    expect(typesIn(made)).toEqual(['bridge', 'ambit-cni', 'istio-cni'])
    for (const keeper of keepers.splice(0)) await keeper.close()
    expect(await removeFromConflist({ confDir, binDir })).toEqual([made])
    expect(typesIn(made)).toEqual(['bridge', 'istio-cni'])
  })

  it('is not put into a list of a version that the plugin does not serve, which would stop every pod', async () => {
    const future = calico.replace('0.3.1', '2.0.0')
    put('10-calico.conflist', future)
    const keeper = await start()
    expect(keeper.status).toMatchObject({ chained: false, problem: { code: 'CNI_VERSION' } })
    expect(get('10-calico.conflist')).toBe(future)
  })

  it('replaces the target of a symbolic link', async () => {
    const target = join(folder, 'real.conflist')
    writeFileSync(target, calico)
    symlinkSync(target, join(confDir, '10-calico.conflist'))
    await start()
    expect(chained('10-calico.conflist')()).toBe(true)
    expect(readFileSync(target, 'utf8')).toContain('ambit-cni')
  })

  it('leaves everything to the agent that has taken over', async () => {
    put('10-calico.conflist', calico)
    const old = await start()
    leads = false
    const newer = { ...entry, socket: '/run/ambit/newer.sock' }
    const next = await start({ entry: newer, leads: () => true })
    await Promise.all([old.settled(), next.settled()])
    put('10-calico.conflist', calico)
    await until(chained('10-calico.conflist'))
    await new Promise((resolve) => setTimeout(resolve, 50))
    await Promise.all([old.settled(), next.settled()])
    expect(get('10-calico.conflist')).toContain('newer.sock')
    expect(next.status).toMatchObject({ chained: true, written: 2 })
    expect(old.status).toMatchObject({ written: 1, problem: { code: 'CNI_NOT_CHAINED' } })
  })

  it('does not fight for ever with a program that takes it out, and says so', async () => {
    put('10-calico.conflist', calico)
    const log = join(folder, 'log')
    const fd = openSync(log, 'w')
    const keeper = await start({ log: openLog({ program: 'agent', level: 'warn', fd }) })
    // The other program: it takes it out whenever it sees it.
    for (let round = 0; round < 5; round++) {
      put('10-calico.conflist', calico)
      await until(chained('10-calico.conflist'))
    }
    put('10-calico.conflist', calico)
    await until(() => keeper.status.problem !== undefined)
    await keeper.settled()
    expect(keeper.status).toMatchObject({ chained: false, written: 6, problem: { code: 'CNI_CONTESTED' } })
    put('10-calico.conflist', `${calico} `)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(chained('10-calico.conflist')()).toBe(false)
    expect(readFileSync(log, 'utf8').match(/CNI_CONTESTED/g)).toHaveLength(1)
    closeSync(fd)
    clock.advance(10_000)
    await until(chained('10-calico.conflist'))
    await keeper.settled()
    expect(keeper.status.chained).toBe(true)
  })

  it('says what it cannot write, and tries again', async () => {
    put('10-calico.conflist', calico)
    const gone = join(folder, 'later')
    const keeper = await start({ binDir: gone })
    expect(keeper.status).toMatchObject({ chained: false, problem: { code: 'CNI_PROGRAM' } })
    // Without a program the entry would let no pod start.
    expect(get('10-calico.conflist')).toBe(calico)
    mkdirSync(gone)
    clock.advance(10_000)
    await until(chained('10-calico.conflist'))
  })

  it('removes what an agent that died left, but not what another one is writing', async () => {
    put('.ambit-10-calico.conflist-dead.tmp', 'half')
    put('.ambit-10-calico.conflist-busy.tmp', 'half')
    utimesSync(join(confDir, '.ambit-10-calico.conflist-dead.tmp'), 1, 1)
    await start()
    expect(readdirSync(confDir)).toEqual(['.ambit-10-calico.conflist-busy.tmp'])
  })

  it('leaves no byte behind when it is removed', async () => {
    put('10-calico.conflist', calico)
    put('20-flannel.conflist', JSON.stringify({ cniVersion: '1.0.0', name: 'f', plugins: [{ type: 'flannel' }, mine] }))
    put('30-bridge.conf', bridge)
    put('40-broken.conflist', '{"plugins":')
    put('50-other.conflist', calico)
    await (await start()).close()
    expect(await removeFromConflist({ confDir, binDir })).toEqual(['10-calico.conflist', '20-flannel.conflist'])
    expect(get('10-calico.conflist')).toBe(calico)
    expect(typesIn('20-flannel.conflist')).toEqual(['flannel'])
    expect(readdirSync(binDir)).toEqual([])
    rmSync(join(confDir, '10-calico.conflist'))
    rmSync(join(confDir, '20-flannel.conflist'))
    await (await start()).close()
    expect(await removeFromConflist({ confDir, binDir })).toEqual(['30-bridge.ambit.conflist'])
    expect(readdirSync(confDir).sort()).toEqual(['30-bridge.conf', '40-broken.conflist', '50-other.conflist'])
    // Again, there is nothing to do.
    expect(await removeFromConflist({ confDir, binDir })).toEqual([])
  })

  it('loses no change of a program that writes all the time', async () => {
    put('10-calico.conflist', calico)
    const keeper = await start()
    let count = 0
    const writer = async (): Promise<void> => {
      for (; count < 60; count++) {
        writeFileSync(join(confDir, 'new'), calico.replace('"mtu": 0', `"mtu": ${count}`))
        renameSync(join(confDir, 'new'), join(confDir, '10-calico.conflist'))
        await new Promise((resolve) => setTimeout(resolve, count % 4))
      }
    }
    await writer()
    await keeper.settled()
    // The last word of the other is there, whatever this one wrote in between.
    expect(get('10-calico.conflist')).toContain('"mtu": 59')
    clock.advance(10_000)
    await until(chained('10-calico.conflist'))
    expect(get('10-calico.conflist')).toContain('"mtu": 59')
  })
})
