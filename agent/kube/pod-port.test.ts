// Ports of pods: what a server that refuses or hangs is answered with, and the kubelet's protocol from a peer of its own. The real
// server and kubelet: test/kube (ambit status).
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocketServer, type WebSocket } from 'ws'
import { KubeClient } from './client.ts'
import { askPod } from './pod-port.ts'
import { Player, refuse } from './testing.ts'

const TO = { namespace: 'shop', pod: 'web', port: 15000 }

describe('a port of a pod that cannot be had', () => {
  let player: Player
  beforeEach(async () => (player = await Player.start()))
  afterEach(() => player.stop())

  it.each([
    [403, 'KUBE_FORBIDDEN'],
    [404, 'KUBE_NOT_FOUND'],
    [500, 'KUBE_SERVER_ERROR'],
  ])('is told by status %i as %s, in the server’s words', async (status, code) => {
    player.answer = (_, to) => refuse(to, status, 'in its own words')
    await expect(askPod(player.client(), TO, '/status')).rejects.toMatchObject({
      code,
      message: expect.stringContaining('in its own words') as string,
    })
    expect(player.asked).toMatchObject([
      { path: '/api/v1/namespaces/shop/pods/web/portforward', query: { ports: '15000' } },
    ])
  })

  it('is asked for once more with fresh credentials after a 401', async () => {
    player.answer = ({ authorization }, to) => refuse(to, authorization === 'Bearer token-1' ? 401 : 404, 'no')
    await expect(askPod(player.client(), TO, '/status')).rejects.toMatchObject({ code: 'KUBE_NOT_FOUND' })
    expect(player.asked.map(({ authorization }) => authorization)).toEqual(['Bearer token-1', 'Bearer token-2'])
  })

  it('is given up after the time', async () => {
    player.answer = () => undefined
    await expect(askPod(player.client(), TO, '/status', { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'KUBE_UNREACHABLE',
    })
  })
})

describe('a port of a pod', () => {
  let server: Server
  let sockets: WebSocketServer
  beforeEach(async () => {
    server = createServer()
    sockets = new WebSocketServer({ server, handleProtocols: () => 'v4.channel.k8s.io' })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterEach(async () => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  const client = (): KubeClient =>
    new KubeClient({
      server: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
      namespace: 'default',
      credentials: async () => ({ tls: {}, headers: {} }),
      refused: () => undefined,
    })

  /** As the kubelet begins: both channels with the port, low byte first. */
  function begin(socket: WebSocket): void {
    for (const channel of [0, 1]) socket.send(Buffer.of(channel, TO.port & 255, TO.port >> 8))
  }
  const data = (text: string): Buffer => Buffer.concat([Buffer.of(0), Buffer.from(text)])

  it('carries a request and its answer, cut anywhere', async () => {
    let asked = ''
    sockets.on('connection', (socket) => {
      begin(socket)
      socket.on('message', (message: Buffer) => {
        asked += message.subarray(1).toString()
        if (!asked.endsWith('\r\n\r\n')) return
        for (const piece of ['HTTP/1.1 2', '00 OK\r\ncontent-length: 1', '1\r\n\r\nhel', 'lo', ' world'])
          socket.send(data(piece))
      })
    })
    expect(await askPod(client(), TO, '/status?x=1')).toEqual({ status: 200, body: 'hello world' })
    expect(asked).toMatch(/^GET \/status\?x=1 HTTP\/1\.1\r\n/)
  })

  it('that nobody listens on is told by the error channel', async () => {
    sockets.on('connection', (socket) => {
      begin(socket)
      socket.send(Buffer.concat([Buffer.of(1), Buffer.from('dial tcp4 127.0.0.1:15000: connection refused')]))
    })
    await expect(askPod(client(), TO, '/status')).rejects.toMatchObject({
      code: 'KUBE_UNREACHABLE',
      message: expect.stringContaining('connection refused') as string,
    })
  })

  it('whose answer is cut off is no whole answer', async () => {
    sockets.on('connection', (socket) => {
      begin(socket)
      socket.on('message', () => {
        socket.send(data('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'))
        socket.close()
      })
    })
    await expect(askPod(client(), TO, '/status')).rejects.toMatchObject({ code: 'KUBE_UNREACHABLE' })
  })

  it('whose answer stops is given up after the time', async () => {
    sockets.on('connection', (socket) => {
      begin(socket)
      socket.on('message', () => socket.send(data('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf')))
    })
    await expect(askPod(client(), TO, '/status', { timeoutMs: 300 })).rejects.toMatchObject({
      code: 'KUBE_UNREACHABLE',
    })
  })
})
