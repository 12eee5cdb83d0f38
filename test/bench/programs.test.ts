import { describe, expect, it } from 'vitest'
import { AnswerReader } from './http/answer-reader.ts'
import { latencies } from './latencies.ts'
import { cpuMs, cpuTicks, memoryOf, parseCpuStat } from './programs.ts'

describe('the bench reads the system', () => {
  it('takes user and system time from /proc/PID/stat, whatever the name of the program', () => {
    const after = 'S 1 2 3 4 5 6 7 8 9 10 111 222 13 14 20 0 5 0'
    expect(cpuTicks(`7 (node) ${after}`)).toBe(333)
    expect(cpuTicks(`7 (a) b (c) ${after}`)).toBe(333)
  })

  it('sees the CPU time of this process grow with its work, and its memory', () => {
    const before = cpuMs(process.pid)
    const end = performance.now() + 60_000
    while (cpuMs(process.pid) < before + 50 && performance.now() < end);
    expect(cpuMs(process.pid)).toBeGreaterThanOrEqual(before + 50)
    const { rssMb, peakMb } = memoryOf(process.pid)
    expect(rssMb).toBeGreaterThan(10)
    expect(peakMb).toBeGreaterThanOrEqual(rssMb)
  })

  it("takes a cgroup's CPU time from cpu.stat", () => {
    expect(parseCpuStat('usage_usec 70123\nuser_usec 50000\nsystem_usec 20123\n')).toBe(70_123)
    expect(() => parseCpuStat('user_usec 1\n')).toThrow('usage_usec')
  })

  it('takes percentiles by nearest rank', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => (100 - i) * 1000)
    expect(latencies(hundred)).toEqual({ p50Ms: 50, p99Ms: 99 })
    expect(latencies([7000])).toEqual({ p50Ms: 7, p99Ms: 7 })
    expect(latencies([]).p50Ms).toBeNaN()
  })
})

describe('the load generator reads answers', () => {
  const answer = Buffer.from('HTTP/1.1 503 no\r\nserver: x\r\nContent-Length: 5\r\n\r\nhello')

  it('wherever they are cut, one after the other', () => {
    const reader = new AnswerReader()
    for (let cut = 1; cut < answer.length; cut++) {
      reader.status = 0
      expect(reader.take(answer, 0, cut)).toBe(false)
      expect(reader.take(answer, cut, answer.length)).toBe(true)
      expect(reader.status).toBe(503)
    }
    expect(reader.take(answer, 0, answer.length)).toBe(true)
  })

  it('and takes nothing that is framed otherwise', () => {
    expect(() => new AnswerReader().take(Buffer.concat([answer, answer]), 0, 2 * answer.length)).toThrow('bytes after')
    const chunked = Buffer.from('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
    expect(() => new AnswerReader().take(chunked, 0, chunked.length)).toThrow('without a length')
    expect(() => new AnswerReader().take(Buffer.alloc(20_000, 'x'), 0, 20_000)).toThrow('without an end')
  })
})
