import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Player, refuse, reply } from './testing.ts'

let player: Player
beforeEach(async () => void (player = await Player.start()))
afterEach(() => player.stop())

describe('a request to the API server', () => {
  it('shows new credentials when the old ones are refused, once', async () => {
    player.answer = ({ authorization }, to) =>
      authorization === 'Bearer token-2' ? reply(to, { fine: true }) : refuse(to, 401, 'Unauthorized')
    const client = player.client()
    expect(await client.ask({ path: '/api' })).toEqual({ fine: true })
    player.answer = (_, to) => refuse(to, 401, 'Unauthorized')
    await expect(client.ask({ path: '/api' })).rejects.toMatchObject({ code: 'KUBE_UNAUTHORIZED', status: 401 })
    expect(player.asked).toHaveLength(4)
  })

  it('gives up on a server that stays busy after five attempts, each later than it asked for', async () => {
    player.answer = (_, to) => refuse(to, 429, 'too many', { headers: { 'retry-after': '2' } })
    let error: unknown
    void player
      .client()
      .ask({ path: '/api', method: 'PATCH', body: {} })
      .catch((cause: unknown) => (error = cause))
    await player.until(() => error !== undefined, 100)
    expect(error).toMatchObject({ code: 'KUBE_THROTTLED' })
    expect(player.asked).toHaveLength(5)
    expect(player.asked[4]!.at - player.asked[0]!.at).toBeGreaterThanOrEqual(8_000)
  })

  it('does not let a server put it to sleep for a day', async () => {
    player.answer = (_, to) =>
      player.asked.length === 1 ? refuse(to, 429, 'later', { headers: { 'retry-after': '86400' } }) : reply(to, {})
    const asking = player.client().ask({ path: '/api' })
    await player.until(() => player.asked.length === 2, 1_000)
    await asking
    expect(player.asked[1]!.at - player.asked[0]!.at).toBeLessThan(90_000)
  })

  it('names what was refused and why', async () => {
    player.answer = (_, to) => refuse(to, 403, 'pods is forbidden: no, you may not')
    await expect(player.client().ask({ path: '/api/v1/pods' })).rejects.toMatchObject({
      code: 'KUBE_FORBIDDEN',
      message: 'GET /api/v1/pods: pods is forbidden: no, you may not',
    })
    player.answer = (_, to) => void to.writeHead(200).end('<html>')
    await expect(player.client().ask({ path: '/api' })).rejects.toMatchObject({ code: 'KUBE_SERVER_ERROR' })
  })

  it('tells a silent server and one that is not there from one that refuses', async () => {
    player.answer = () => undefined
    await expect(player.client().ask({ path: '/api', timeoutMs: 50 })).rejects.toMatchObject({
      code: 'KUBE_UNREACHABLE',
      message: expect.stringContaining('no answer within 50 ms'),
    })
    const client = player.client()
    await player.stop()
    await expect(client.ask({ path: '/api' })).rejects.toMatchObject({ code: 'KUBE_UNREACHABLE' })
    player = await Player.start()
  })

  it('uses its connection again, and another one when the server has closed it', async () => {
    player.answer = (_, to) => reply(to, {})
    const client = player.client()
    for (let at = 0; at < 20; at++) {
      await client.ask({ path: '/api' })
      if (at % 3 === 0) player.cut()
    }
    expect(player.asked).toHaveLength(20)
    client.close()
  })

  it('speaks only to a server whose certificate is of the cluster', async () => {
    const other = await Player.start(player.clock, true)
    const client = player.client()
    Object.defineProperty(client.connection, 'server', { value: other.connection.server })
    await expect(client.ask({ path: '/api' })).rejects.toMatchObject({ code: 'KUBE_UNREACHABLE' })
    expect(other.asked).toHaveLength(0)
    await other.stop()
  })

  it('ends when it is told to, also while it waits', async () => {
    player.answer = (_, to) => refuse(to, 429, 'too many', { headers: { 'retry-after': '30' } })
    const stop = new AbortController()
    const asking = player.client().ask({ path: '/api', signal: stop.signal })
    await player.until(() => player.asked.length === 1)
    stop.abort()
    await expect(asking).rejects.toMatchObject({ code: 'KUBE_STOPPED' })
  })
})
