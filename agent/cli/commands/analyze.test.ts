// The command as a person runs it: files in, lines and exit code out.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { main } from '../main.ts'
import { testTerminal } from '../samples.ts'

const SERVICE = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
`
const BROKEN = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
    - route:
        - destination: {host: web}
          weigth: 10
`

describe('ambit analyze', () => {
  let folder: string
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-analyze-'))))
  afterEach(() => rmSync(folder, { recursive: true }))
  const run = async (args: string[], input = '') => {
    const terminal = testTerminal(input)
    const code = await main(['analyze', ...args], terminal)
    return { code, out: terminal.text, err: terminal.errors }
  }

  it('says that all is well and exits 0', async () => {
    writeFileSync(join(folder, 'a.yaml'), SERVICE)
    expect(await run([folder])).toEqual({ code: 0, out: '1 resource: 0 errors, 0 warnings, 0 info\n', err: '' })
  })

  it('names file, line, field, code and fix, and exits 1', async () => {
    const file = join(folder, 'a.yaml')
    writeFileSync(file, `${SERVICE}---\n${BROKEN}`)
    const { code, out } = await run([folder])
    expect(code).toBe(1)
    expect(out).toContain(`${file}:14: error: VirtualService default/web: spec.http[0].route[0].weigth: `)
    expect(out).toMatch(/\[CONFIG_UNKNOWN_FIELD\] .*weight/)
    expect(out).toContain('1 error, ')
  })

  it('reads standard input', async () => {
    const { code, out } = await run(['-'], BROKEN)
    expect(code).toBe(1)
    expect(out).toContain('<stdin>:9: error: ')
  })

  it('gives the same as JSON and YAML', async () => {
    const json = await run(['-', '-o', 'json'], BROKEN)
    expect(json.code).toBe(1)
    expect(JSON.parse(json.out)).toMatchObject({
      problems: [{ severity: 'error', code: 'CONFIG_UNKNOWN_FIELD', line: 9 }],
    })
    expect((await run(['-', '-o', 'yaml'], BROKEN)).out).toContain('code: CONFIG_UNKNOWN_FIELD')
  })

  it('names a path that does not exist', async () => {
    const { code, out } = await run([join(folder, 'none')])
    expect(code).toBe(1)
    expect(out).toContain('[CONFIG_UNREADABLE]')
  })

  it('exits 2 when it is used wrongly', async () => {
    expect((await run(['--no-such-flag'])).code).toBe(2)
    const odd = await run(['-', '-o', 'xml'], BROKEN)
    expect(odd.code).toBe(2)
    expect(odd.err).toContain("'xml' is no output format")
  })
})

describe('ambit', () => {
  it('gives help with an example for every verb', async () => {
    for (const verb of ['analyze', 'explain', 'version']) {
      const terminal = testTerminal()
      expect(await main([verb, '--help'], terminal)).toBe(0)
      expect(terminal.text).toContain(`Example:\n  $ `)
    }
    const terminal = testTerminal()
    expect(await main([], terminal)).toBe(0)
    expect(terminal.text).toContain('sandbox')
  })

  it('refuses a verb it does not have', async () => {
    const terminal = testTerminal()
    expect(await main(['analyse', 'x'], terminal)).toBe(2)
    expect(terminal.errors).toContain('analyze')
  })

  it('says its version', async () => {
    const terminal = testTerminal()
    await main(['version'], terminal)
    expect(terminal.text).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})
