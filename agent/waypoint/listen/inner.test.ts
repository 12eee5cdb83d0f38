import { describe, expect, it } from 'vitest'
import { detect } from './inner.ts'

const of = (text: string) => detect(Buffer.from(text, 'latin1'))

describe('protocol detection', () => {
  it.each([
    ['GET / HTTP/1.1\r\n', 'http1'],
    ['POST /', 'http1'],
    ['OPTIONS *', 'http1'],
    ['CONNECT a:1', 'http1'],
    ['VERSION-CONTROL /', 'http1'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'http2'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore', 'http2'],
    ['PRI * HTT', 'more'],
    ['PROPFIND /', 'http1'],
    ['G', 'more'],
    ['GET ', 'more'],
    ['', 'more'],
    ['\x16\x03\x01\x02\x00', 'opaque'],
    ['*1\r\n$4\r\nPING\r\n', 'opaque'],
    ['SSH-2.0-OpenSSH\r\n', 'opaque'],
    [' GET /', 'opaque'],
    ['EHLO example.org\r\n', 'http1'],
    ['get / HTTP/1.1', 'opaque'],
    ['A'.repeat(40), 'opaque'],
    ['\0\0\0\x05', 'opaque'],
    ['GET \r\n', 'opaque'],
  ])('%j is %s', (text, kind) => {
    expect(of(text)).toBe(kind)
  })

  it('decides the same whether bytes come at once or one by one', () => {
    for (const text of ['GET /index HTTP/1.1', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'SSH-2.0-x', 'PRINT /']) {
      let first = 'more'
      for (let i = 1; i <= text.length && first === 'more'; i++) first = of(text.slice(0, i))
      expect(first).toBe(of(text))
    }
  })
})
