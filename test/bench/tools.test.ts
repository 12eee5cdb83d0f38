import { describe, expect, it } from 'vitest'
import { median, Samples } from './table.ts'
import { parseIperf, parseWrk } from './tools.ts'

describe('the bench reads its tools', () => {
  it('takes rate, latencies and errors from wrk', () => {
    const text = `Running 1s test @ http://127.0.0.1:8080/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   214.11us  100.02us   2.35ms   77.01%
    Req/Sec    38.10k     1.11k   40.01k    72.73%
  Latency Distribution
     50%  198.00us
     75%  251.00us
     90%  330.00us
     99%    1.20ms
  41703 requests in 1.10s, 34.04MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  37911.13
Transfer/sec:     30.94MB
`
    expect(parseWrk(text)).toEqual({
      requestsPerSecond: 37911.13,
      p50Ms: 0.198,
      p99Ms: 1.2,
      requests: 41703,
      errors: 7,
    })
  })

  it('takes throughput from iperf3, and its error where it failed', () => {
    expect(parseIperf('{"end":{"sum_received":{"bits_per_second":4.2e9}}}')).toBe(4.2)
    expect(() => parseIperf('{"error":"unable to connect"}')).toThrow('unable to connect')
  })

  it('shows medians and ratios to the baseline of the same run', () => {
    const samples = new Samples()
    for (const value of [10, 30, 20]) samples.add('plain', value, 'x', '')
    for (const value of [5, 5]) samples.add('mesh', value, 'x', 'plain')
    expect(samples.rows()[1]).toMatchObject({ name: 'mesh', value: 5, ratio: 0.25, baseline: 'plain' })
    expect(median([1, 2, 3, 4])).toBe(2.5)
  })
})
