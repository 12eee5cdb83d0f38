// `ambit app`: the sample workloads that pods of the sandbox run. Must not live here: the protocols themselves.
import { Command, CommanderError } from 'commander'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { speakerOf } from './answer.ts'
import { goodBehaviour, type Behaviour } from './behaviour.ts'
import { callBulk, callGrpc, callWebSocket } from './call.ts'
import { parsePorts, startEcho } from './echo.ts'
import { runLoad } from './load.ts'

function numberFrom(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text === '' || !(value >= low && value <= high))
      throw new AmbitError('APP_FLAG_INVALID', `'${text}' is not a number from ${low} to ${high}`)
    return value
  }
}

function collect(text: string, before: string[]): string[] {
  return [...before, text]
}

function headersFrom(list: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const item of list) {
    const at = item.indexOf(':')
    if (at <= 0)
      throw new AmbitError('APP_FLAG_INVALID', `'${item}' is not a header`, { hint: "Write -H 'name: value'." })
    headers[item.slice(0, at).trim().toLowerCase()] = item.slice(at + 1).trim()
  }
  return headers
}

interface EchoFlags {
  port: string[]
  name?: string
  version?: string
  delay: number
  status: number
  failRate: number
  failStatus: number
}

interface LoadFlags {
  rate: number
  concurrency: number
  duration: number
  requests: number
  timeout: number
  method: string
  header: string[]
  body?: string
  http2: boolean
  close: boolean
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

async function echo(flags: EchoFlags): Promise<number> {
  const speaker = speakerOf(process.env, { name: flags.name, version: flags.version })
  const behaviour: Behaviour = {
    ...goodBehaviour,
    delay: flags.delay,
    status: flags.status,
    failRate: flags.failRate,
    failStatus: flags.failStatus,
  }
  const spec = flags.port.length > 0 ? flags.port.join(',') : (process.env['ECHO_PORTS'] ?? 'http:8080')
  const running = await startEcho(speaker, behaviour, parsePorts(spec))
  print({ message: 'listening', ...speaker, ports: running.ports })
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
  await running.close()
  return 0
}

/** Its definition. */
export function appCommand(exit: (code: number) => void): Command {
  const app = new Command('ambit app').description('Sample workloads: an echo server and the clients that try it.')
  app.exitOverride().showHelpAfterError(true)

  app
    .command('echo')
    .description('Answers HTTP/1.1, HTTP/2, gRPC, WebSocket, TCP and more, and says whom it saw.')
    .option('-p, --port <[name:]port>', 'a port to open; repeatable; the name says the protocol', collect, [])
    .option('--name <name>', 'the name in answers (default: APP_NAME, else the pod)')
    .option('--version <version>', 'the version in answers (default: APP_VERSION)')
    .option('--delay <ms>', 'wait before every HTTP answer', numberFrom(0, 600_000), 0)
    .option('--status <code>', 'status of HTTP answers', numberFrom(200, 599), 200)
    .option('--fail-rate <share>', 'share of HTTP answers that fail, 0 to 1', numberFrom(0, 1), 0)
    .option('--fail-status <code>', 'status of those', numberFrom(200, 599), 503)
    .addHelpText(
      'after',
      `
Ports come from --port, else ECHO_PORTS, else http:8080. Names: http, http2, grpc (one sniffing server), tcp (echo),
and with the word smtp (speaks first), sink (counts and hashes), source (send a number, get so many bytes).
A request's query overrides: ?status=503&delay=100&bytes=1000000. From the pod itself, while it runs:
  curl -X PUT localhost:8080/-/behaviour -d '{"failRate":1}'

Example:
  ambit app echo --port http:8080 --port tcp-sink:9001 --version v2 --fail-rate 0.1`,
    )
    .action(async (flags: EchoFlags) => exit(await echo(flags)))

  app
    .command('load <url>')
    .description('Sends requests and prints one JSON summary: codes, who answered, latency.')
    .option('-r, --rate <n>', 'requests a second; 0 = as fast as they come back', numberFrom(0, 1e6), 0)
    .option('-c, --concurrency <n>', 'requests in flight', numberFrom(1, 10_000), 8)
    .option('-d, --duration <s>', 'seconds to run', numberFrom(0, 86_400), 0)
    .option('-n, --requests <n>', 'requests to send (default 1000 without --duration)', numberFrom(0, 1e9), 0)
    .option('--timeout <s>', 'seconds to wait for one answer', numberFrom(0.01, 3600), 10)
    .option('-X, --method <method>', 'request method', 'GET')
    .option('-H, --header <header>', 'a request header; repeatable', collect, [])
    .option('--body <text>', 'request body')
    .option('--http2', 'HTTP/2 with prior knowledge', false)
    .option('--close', 'a new connection for every request', false)
    .addHelpText('after', '\nExample:\n  ambit app load http://my-service/api/items -n 2000 -c 16')
    .action(async (url: string, flags: LoadFlags) => {
      let stop = false
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => (stop = true))
      const summary = await runLoad(
        {
          url: new URL(url),
          method: flags.method,
          headers: headersFrom(flags.header),
          body: flags.body === undefined ? undefined : Buffer.from(flags.body),
          concurrency: Math.round(flags.concurrency),
          rate: flags.rate,
          requests: flags.requests === 0 && flags.duration === 0 ? 1000 : flags.requests,
          durationMs: flags.duration * 1000,
          timeoutMs: flags.timeout * 1000,
          http2: flags.http2,
          close: flags.close,
        },
        () => stop,
      )
      print(summary)
      exit(Object.keys(summary.errors).length === 0 ? 0 : 1)
    })

  app
    .command('grpc <url>')
    .description('One gRPC call that streams messages both ways; prints what came back.')
    .option('-n, --messages <n>', 'messages to send, each after the echo of the last', numberFrom(0, 1e6), 10)
    .option('--size <bytes>', 'size of a message', numberFrom(0, 4e6), 100)
    .option('-H, --metadata <header>', 'call metadata; repeatable', collect, [])
    .addHelpText('after', '\nExample:\n  ambit app grpc http://my-service:9090 -n 100')
    .action(async (url: string, flags: { messages: number; size: number; metadata: string[] }) => {
      const told = await callGrpc(new URL(url), flags.messages, flags.size, headersFrom(flags.metadata))
      print(told)
      exit(told['grpcStatus'] === '0' && told['equal'] === true && told['received'] === flags.messages ? 0 : 1)
    })

  app
    .command('websocket <url>')
    .description('Talks over a WebSocket; prints what came back.')
    .option('-n, --messages <n>', 'messages to send', numberFrom(1, 1e6), 10)
    .addHelpText('after', '\nExample:\n  ambit app websocket http://my-service/chat -n 100')
    .action(async (url: string, flags: { messages: number }) => {
      const told = await callWebSocket(new URL(url), flags.messages)
      print(told)
      exit(told['equal'] === true && told['received'] === flags.messages ? 0 : 1)
    })

  app
    .command('bulk <url>')
    .description('Moves many bytes to or from an echo app and compares checksums.')
    .requiredOption('--bytes <n>', 'how many', numberFrom(0, 1e11))
    .option('--send', 'send them instead of fetching them', false)
    .option('--read-rate <n>', 'read only so many bytes a second', numberFrom(0, 1e11), 0)
    .addHelpText('after', '\nExample:\n  ambit app bulk http://my-service/ --bytes 1000000000')
    .action(async (url: string, flags: { bytes: number; send: boolean; readRate: number }) => {
      const told = await callBulk(new URL(url), flags.bytes, flags.send, flags.readRate)
      print(told)
      exit(told['ok'] === true ? 0 : 1)
    })
  return app
}

/** Runs `ambit app …`; `argv` is what follows `app`. Resolves with the exit code. */
export async function main(argv: string[]): Promise<number> {
  let code = 0
  try {
    await appCommand((value) => (code = value)).parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    process.stderr.write(`ambit app: ${messageOf(error)}\n`)
    return 1
  }
}
