import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { openLog, silentLog } from '../base/log.ts'
import {
  dumpRoutes,
  loggingRoutes,
  metricsRoutes,
  openAdmin,
  readyRoutes,
  type AdminRoute,
  type AdminServer,
} from './admin.ts'
import { CONTENT_TYPE, Metrics } from './exposition.ts'
import { Readiness } from './readiness.ts'

const open: AdminServer[] = []
afterEach(async () => {
  for (const server of open.splice(0)) await server.close()
})

async function start(
  routes: Record<string, AdminRoute>,
  listen = '127.0.0.1:0',
  localOnly = true,
): Promise<AdminServer> {
  const server = await openAdmin({ listen, routes, localOnly, log: silentLog })
  open.push(server)
  return server
}

function call(server: AdminServer, path: string, method = 'GET', headers: Record<string, string> = {}) {
  const unix = server.address.startsWith('unix:') ? server.address.slice(5) : undefined
  const [host, port] = server.address.split(':')
  return new Promise<{ status: number; type: string; body: string }>((resolve, reject) => {
    const sent = request(
      unix ? { socketPath: unix, path, method, headers } : { host, port, path, method, headers },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', body }),
        )
      },
    )
    sent.on('error', reject).end()
  })
}

describe('the admin server', () => {
  it('serves metrics in the text format', async () => {
    const metrics = new Metrics('test', '0')
    metrics.counter({ name: 'x_total', help: 'X.', labels: [] }).with().add(3)
    const server = await start(metricsRoutes(metrics))
    const reply = await call(server, '/stats/prometheus')
    expect([reply.status, reply.type]).toEqual([200, CONTENT_TYPE])
    expect(reply.body).toContain('\nx_total 3\n')
  })

  it('says what readiness waits for', async () => {
    const readiness = new Readiness()
    using first = readiness.block('workloads')
    const second = readiness.block('policies')
    const server = await start(readyRoutes(readiness))
    expect(await call(server, '/healthz/ready')).toMatchObject({
      status: 503,
      body: 'waiting for: workloads, policies\n',
    })
    first.done()
    first.done()
    second[Symbol.dispose]()
    expect((await call(server, '/healthz/ready')).status).toBe(200)
    readiness.drain()
    expect(await call(server, '/healthz/ready')).toMatchObject({ status: 503, body: 'draining\n' })
  })

  it('dumps state without private keys', async () => {
    const key = '-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----'
    const server = await start(
      dumpRoutes(() => ({
        workloads: new Map([['a', 1]]),
        set: new Set([1]),
        big: 1n,
        key,
        privateKey: 'x',
        bytes: new Uint8Array([1]),
      })),
    )
    const { body } = await call(server, '/config_dump')
    expect(JSON.parse(body)).toEqual({
      workloads: { a: 1 },
      set: [1],
      big: '1',
      key: '[private key]',
      privateKey: '[private key]',
      bytes: 'AQ==',
    })
    expect(body).not.toContain('MIIE')
  })

  it('changes the level of its logs', async () => {
    const log = openLog({ program: 'test', level: 'info' })
    const server = await start(loggingRoutes(log))
    expect(await call(server, '/logging', 'POST')).toMatchObject({ status: 200, body: 'info\n' })
    expect((await call(server, '/logging?level=debug', 'POST')).status).toBe(200)
    expect(log.level).toBe('debug')
    expect((await call(server, '/logging?level=loud', 'POST')).status).toBe(400)
    expect((await call(server, '/logging?level=info')).status).toBe(405)
  })

  it('answers what it has, by the right method, to no web page', async () => {
    const server = await start({
      '/a': { method: 'GET', about: 'about a', handle: () => Promise.reject(new Error('broken')) },
    })
    expect((await call(server, '/')).body).toBe('GET /a  about a\n')
    expect((await call(server, '/nope')).status).toBe(404)
    expect((await call(server, '/constructor')).status).toBe(404)
    expect((await call(server, '/a', 'PUT')).status).toBe(405)
    expect((await call(server, '/a', 'DELETE')).status).toBe(405)
    expect(await call(server, '/a')).toMatchObject({ status: 500, body: 'broken\n' })
    expect((await call(server, '/', 'GET', { origin: 'http://evil' })).status).toBe(403)
  })

  it('listens on a unix socket for its owner only, also over one left behind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ambit-admin-'))
    const path = join(folder, 's')
    const left = createServer().listen(path)
    await new Promise((resolve) => left.once('listening', resolve))
    const routes = readyRoutes(new Readiness())
    await expect(start(routes, `unix:${path}`)).rejects.toMatchObject({ code: 'ADMIN_PORT_IN_USE' })
    await new Promise((resolve) => left.close(resolve))
    writeFileSync(join(folder, 'other'), '')
    const server = await start(routes, `unix:${path}`)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect((await call(server, '/healthz/ready')).status).toBe(200)
    await expect(start(routes, `unix:${join(folder, 'other')}`)).rejects.toMatchObject({ code: 'ADMIN_PORT_IN_USE' })
    expect(existsSync(join(folder, 'other'))).toBe(true)
    rmSync(folder, { recursive: true, force: true })
  })

  it('takes the place of a live one at a unix socket where it may, and leaves it alone at its own end', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ambit-admin-'))
    const path = join(folder, 's')
    const open = async (name: string) => {
      const routes = {
        [`/${name}`]: { method: 'GET', about: name, handle: () => ({ status: 200, type: '', body: name }) },
      } as const
      return openAdmin({ listen: `unix:${path}`, routes, localOnly: true, replace: true, log: silentLog })
    }
    const first = await open('first')
    expect((await call(first, '/first', 'GET', { connection: 'close' })).status).toBe(200)
    const second = await open('second')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect((await call(second, '/second', 'GET', { connection: 'close' })).status).toBe(200)
    await first.close()
    expect((await call(second, '/second', 'GET', { connection: 'close' })).status).toBe(200)
    await second.close()
    expect(readdirSync(folder)).toEqual([])
    rmSync(folder, { recursive: true, force: true })
  })

  it('refuses addresses that are none, not local, or taken', async () => {
    await expect(start({}, 'nonsense')).rejects.toMatchObject({ code: 'ADMIN_ADDRESS_INVALID' })
    await expect(start({}, '0.0.0.0:0')).rejects.toMatchObject({ code: 'ADMIN_NOT_LOCAL' })
    const server = await start({}, '127.0.0.1:0')
    await expect(start({}, server.address)).rejects.toMatchObject({ code: 'ADMIN_PORT_IN_USE' })
    expect((await start({}, '0.0.0.0:0', false)).address).toMatch(/^0\.0\.0\.0:\d+$/)
  })
})
