// The addon under AddressSanitizer (with leaks) inside Node, and its engine under ThreadSanitizer in a program of its own, because
// Node does not start there. What OpenSSL or Node keep for themselves is not ours to judge: a report counts when a frame of it is ours.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { KeyPair } from '../../agent/io/index.ts'
import { build, certificates, root, run, runtime, torture } from './builds.ts'

const OURS = /native\/io\/src|ambit_io\.asan\.node/

/** The sanitizer's reports that have a frame of ours. */
function reportsOfOurs(text: string): string[] {
  return text
    .split(/\n(?=Direct leak|Indirect leak|=+\n=+\d+=+ERROR)/)
    .filter((part) => OURS.test(part) && part.includes('#0'))
}

describe('the native transport under sanitizers', () => {
  it('touches no memory it should not and leaks none, with system calls failing', async () => {
    const addon = build('asan')
    const { reports, stderr } = await torture(
      ['--faults', '--exchanges', '250', '--seed', '7', '--threads', '2', '--certificates', certificates()],
      { AMBIT_IO_ADDON: addon, LD_PRELOAD: runtime('libasan.so'), ASAN_OPTIONS: 'detect_leaks=1' },
    )
    expect(reports.map((report) => report.wrong)).toEqual([[], []])
    expect(reportsOfOurs(stderr)).toEqual([])
    expect(stderr).not.toMatch(/heap-use-after-free|buffer-overflow|double-free|stack-use-after/)
  })

  it('passes its contract under AddressSanitizer', async () => {
    const outcome = await run(
      process.execPath,
      [
        'node_modules/vitest/vitest.mjs',
        'run',
        '--project',
        'unit',
        '--root',
        root,
        'agent/io/native',
        '-t',
        'contract|TLS',
      ],
      {
        AMBIT_IO_ADDON: build('asan'),
        LD_PRELOAD: runtime('libasan.so'),
        // The runner's own leaks, and those of python and openssl that the tests start, are not the matter here.
        ASAN_OPTIONS: 'detect_leaks=0',
      },
    )
    expect(outcome.stderr).not.toMatch(/AddressSanitizer/)
    expect(outcome.stdout).toMatch(/\d{2,} passed, 0 failed/)
  })

  it('shares nothing between two engines in two threads (ThreadSanitizer)', async () => {
    const file = certificates()
    const folder = dirname(file)
    const { root: trust, client } = JSON.parse(readFileSync(file, 'utf8')) as { root: string; client: KeyPair }
    const pem = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text)
      return join(folder, name)
    }
    const program = join(folder, 'threads')
    execFileSync(
      'g++',
      [
        ...['-std=c++20', '-O1', '-g', '-fsanitize=thread', '-Wno-missing-field-initializers'],
        ...['engine', 'read', 'sockets', 'tls', 'write'].map((name) => `native/io/src/${name}.cc`),
        'native/io/test/threads.cc',
        ...['-o', program, '-lssl', '-lcrypto'],
      ],
      { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] },
    )
    const args = [pem('c.pem', client.certificate), pem('k.pem', client.key), pem('r.pem', trust), '100']
    // Its shadow memory does not fit the address layout of newer kernels unless that is fixed.
    const outcome = await run('setarch', ['-R', program, ...args], { TSAN_OPTIONS: 'exitcode=66' })
    expect(outcome.stderr).toBe('')
    expect(outcome.stdout).toBe('200 connections, 20000000 bytes, 0 failed\n')
    expect(outcome.status).toBe(0)
  })
})
