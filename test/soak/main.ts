// `npm run soak`: a long load, by default a million requests and a hundred thousand tunnels, and what it left behind; then what
// an idle connection costs. Must not live here: the load (soak.ts).
import { parseArgs } from 'node:util'
import { app, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { pause, Stage, tunnel } from '../world/waypoint-process.ts'
import { growth, soak } from './soak.ts'

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '1000000' },
    tunnels: { type: 'string', default: '100000' },
    seconds: { type: 'string', default: '3600' },
    workers: { type: 'string', default: '1' },
    idle: { type: 'string', default: '10000' },
  },
})
const megabytes = (bytes: number): string => (bytes / 1_048_576).toFixed(1)

/** Resident bytes per idle connection, per idle tunnel on one, and per request in flight. */
async function costs(count: number): Promise<void> {
  const stage = await Stage.open()
  const server = app(() => {})
  await stage.world.endpoint(10, await listenOn(server, stage.world.address(10)))
  stage.publish()
  const program = await stage.start()
  await program.ready()
  await pause(1_000)
  const print = (what: string, bytes: number, each: number): void =>
    console.log(`${what}: ${(bytes / each / 1_024).toFixed(1)} KiB each (${each})`)
  const before = program.rss()
  const sessions = []
  for (let i = 0; i < count; i += 50)
    sessions.push(...(await Promise.all(Array.from({ length: Math.min(50, count - i) }, () => stage.session()))))
  await pause(3_000)
  const connected = program.rss()
  print('idle connection', connected - before, count)
  const used = sessions.slice(0, Math.min(count, 1_000))
  const streams = []
  for (const session of used) streams.push(await tunnel(session))
  await pause(2_000)
  const tunnelled = program.rss()
  print('idle tunnel', tunnelled - connected, used.length)
  for (const stream of streams) stream.write('GET / HTTP/1.1\r\nhost: api\r\n\r\n')
  await pause(3_000)
  print('request in flight', program.rss() - tunnelled, await program.metric('ambit_waypoint_requests_active'))
  for (const session of sessions) session.destroy()
  await pause(3_000)
  const left =
    (await program.metric('ambit_waypoint_connections')) + (await program.metric('ambit_waypoint_requests_active'))
  console.log(`left once all are gone: ${left}; resident ${megabytes(program.rss() - before)} MiB over the start`)
  server.closeAllConnections()
  server.close()
  await stage.close()
}

if (Number(values.idle) > 0) await costs(Number(values.idle))
let failed = false
if (Number(values.requests) > 0) {
  console.log('requests  tunnels  heap MiB  resident MiB')
  const result = await soak({
    requests: Number(values.requests),
    tunnels: Number(values.tunnels),
    seconds: Number(values.seconds),
    workers: Number(values.workers),
    onSample: ({ requests, tunnels, heap, resident }) =>
      console.log(`${requests}  ${tunnels}  ${megabytes(heap)}  ${megabytes(resident)}`),
  })
  const heap = growth(result.samples, (sample) => sample.heap)
  const resident = growth(result.samples, (sample) => sample.resident)
  console.log(
    `${result.requests} requests and ${result.tunnels} tunnels in ${result.seconds.toFixed(0)} s: ` +
      `${result.lost.length} lost, heap ${megabytes(heap)} MiB, resident ${megabytes(resident)} MiB more than in the middle third, left ${JSON.stringify(result.left)}`,
  )
  failed = result.lost.length > 0 || Object.values(result.left).some((count) => count > 0)
}
process.exit(failed ? 1 : 0)
