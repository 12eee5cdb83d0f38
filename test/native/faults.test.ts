// The native transport under a build of the addon in which system calls fail: EAGAIN, ECONNRESET, EMFILE, ENOMEM and short counts at
// every one of them. No connection may get stuck or end cleanly with bytes missing, and nothing may be left.
import { describe, expect, it } from 'vitest'
import { build, certificates, torture } from './builds.ts'

describe('the native transport when system calls fail', () => {
  it.each([1, 2, 3])('leaves no stuck connection, no truncated clean end and no leak (seed %i)', async (seed) => {
    const { reports, stderr } = await torture(
      ['--faults', '--exchanges', '500', '--seed', String(seed), '--certificates', certificates()],
      { AMBIT_IO_ADDON: build('faults') },
    )
    expect(stderr).toBe('')
    const [report] = reports
    expect(report?.wrong).toEqual([])
    expect(report?.left).toEqual({ connections: 0, chunks: 0, tls: 0 })
    // A run in which nothing failed, or nothing went well, would prove nothing.
    expect(report?.injected).toBeGreaterThan(30)
    expect(report?.clean).toBeGreaterThan(100)
    expect(report?.cut).toBeGreaterThan(100)
  })

  it('carries everything whole when nothing fails', async () => {
    const { reports } = await torture(['--exchanges', '300', '--certificates', certificates()], {})
    expect(reports[0]?.wrong).toEqual([])
    expect(reports[0]?.injected).toBe(0)
    expect(reports[0]?.left).toEqual({ connections: 0, chunks: 0, tls: 0 })
  })

  it('serves each worker thread by an engine of its own', async () => {
    const { reports } = await torture(['--exchanges', '100', '--threads', '3', '--certificates', certificates()], {})
    expect(reports).toHaveLength(3)
    for (const report of reports) {
      expect(report.wrong).toEqual([])
      expect(report.left).toMatchObject({ connections: 0, chunks: 0 })
    }
  })
})
