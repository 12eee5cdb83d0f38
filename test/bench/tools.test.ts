import { describe, expect, it } from 'vitest'
import { median, Samples } from './table.ts'
import { parseH2load, parseIperf, parseOpensslTime, parseWrk } from './tools.ts'

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

  it('takes rate and errors from h2load, and latencies from its log', () => {
    const text = `starting benchmark...
finished in 1.00s, 4000.50 req/s, 668.23KB/s
requests: 4003 total, 4003 started, 4002 done, 4000 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 3999 2xx, 0 3xx, 0 4xx, 2 5xx
traffic: 668.23KB (684264) total, 425.78KB (436000) headers (space savings 39.78%), 39.06KB (40000) data
`
    const log = Array.from({ length: 100 }, (_, i) => `179561779279901${i}\t200\t${(i + 1) * 10}`).join('\n')
    expect(parseH2load(text, `${log}\n`)).toEqual({
      requestsPerSecond: 4000.5,
      requests: 4000,
      errors: 3,
      p50Ms: 0.5,
      p99Ms: 0.99,
    })
    // Both in one text, as a shell in a pod gives them.
    expect(parseH2load(text + log, text + log).p99Ms).toBe(0.99)
    expect(() => parseH2load('no server', '')).toThrow('no server')
  })

  it('takes the rate from openssl s_time', () => {
    const text = `Collecting connection statistics for 2 seconds
***
141 connections in 0.22s; 640.91 connections/user sec, bytes read 0
141 connections in 3 real seconds, 0 bytes read per connection
`
    expect(parseOpensslTime(text)).toMatchObject({ requests: 141, requestsPerSecond: 47, errors: 0 })
    expect(() => parseOpensslTime('0 connections in 3 real seconds')).toThrow('s_time said')
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
