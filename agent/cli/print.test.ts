import { describe, expect, it } from 'vitest'
import { paint, parseFormat, plural, structured, table } from './print.ts'

describe('print', () => {
  it('lines columns up, also under colour, without blanks at line ends', () => {
    expect(table(['name', 'ready'], [['a', 'yes'], ['longer', 'no'], ['x']])).toBe(
      'NAME     READY\na        yes\nlonger   no\nx\n',
    )
    expect(table(['a', 'b'], [[paint('xx', 'red', true), 'y']])).toBe('A    B\n\u001b[31mxx\u001b[0m   y\n')
  })

  it('says the same in JSON and YAML, leaving out what is undefined', () => {
    const value = { a: 1, b: undefined, c: ['x'] }
    expect(structured(value, 'json')).toBe('{\n  "a": 1,\n  "c": [\n    "x"\n  ]\n}\n')
    expect(structured(value, 'yaml')).toBe('a: 1\nc:\n  - x\n')
  })

  it('refuses formats it does not have', () => {
    expect(parseFormat(undefined)).toBe('text')
    expect(() => parseFormat('wide')).toThrow(expect.objectContaining({ code: 'CLI_FORMAT_UNKNOWN' }))
  })

  it('counts', () => {
    expect([plural(1, 'error'), plural(2, 'error'), plural(0, 'error')]).toEqual(['1 error', '2 errors', '0 errors'])
  })
})
