// nginx, HAProxy and Envoy with the waypoint's job, one worker each: the same 80/20 split, an access log, for Envoy an RBAC filter too; and the nginx
// that is the app behind all of them. Must not live here: what is measured (cases.ts), the waypoint (world.ts).
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CLIENT_CORE, listening, PROXY_CORE, start, type Program } from '../programs.ts'

/** Addresses of the two versions of the app in plaintext. */
export const APPS = ['10.84.0.11', '10.84.0.12'] as const
/** The app's ports: HTTP/1.1, HTTP/2 with prior knowledge, gRPC. */
export const APP_PORT = { h1: 8080, h2: 8081, grpc: 8082 } as const
export type Protocol = keyof typeof APP_PORT

const BODY = 'hello from a server of the bench, 64 bytes or so in its body...'
export const MEGABYTE = 1_048_576
export const GRPC_PATH = '/bench.Echo/Say'

/** A gRPC message: not compressed, its length, 32 bytes. */
export function grpcMessage(): Buffer {
  const message = Buffer.alloc(37, 'x')
  message.writeUInt8(0, 0)
  message.writeUInt32BE(32, 1)
  return message
}

function nginxHead(folder: string): string {
  return `worker_processes 1; daemon off; pid ${folder}/pid; error_log /dev/stderr warn; worker_rlimit_nofile 8192;
events { worker_connections 4096; }
`
}

function nginxCommon(folder: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (one) => `${one}_temp_path ${folder}/${one};`,
  )
  return `keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on; ${temporary.join(' ')}
  client_max_body_size 0; http2_max_concurrent_streams 1000;`
}

/** The app: one nginx on the client's core. */
export async function startApp(folder: string): Promise<Program> {
  const root = join(folder, 'app')
  mkdirSync(root, { recursive: true })
  writeFileSync(join(root, '1mb'), Buffer.alloc(MEGABYTE, 'x'))
  writeFileSync(join(root, 'message'), grpcMessage())
  for (const name of ['upload', 'answer']) writeFileSync(join(root, name), BODY)
  const both = (port: number, more = ''): string =>
    APPS.map((ip) => `listen ${ip}:${port} backlog=4096${more};`).join(' ')
  writeFileSync(
    join(root, 'nginx.conf'),
    `${nginxHead(root)}http {
  access_log off; ${nginxCommon(root)} default_type text/plain; root ${root}; open_file_cache max=10; sendfile on;
  server {
    ${both(APP_PORT.h1)} ${both(APP_PORT.h2, ' http2')}
    location / { return 200 "${BODY}"; }
    location = /1mb { }
    # A file takes no POST; mirroring makes nginx read the body first, so that the answer is never early (wrk could not take that).
    location = /upload { mirror /mirror; client_body_buffer_size 2m; error_page 405 =200 /answer; }
    location = /mirror { internal; return 204; }
    location = /answer { }
  }
  server {
    ${both(APP_PORT.grpc, ' http2')}
    location = /message { default_type application/grpc; add_trailer grpc-status 0 always; }
    # A file takes no POST; its content is the answer nevertheless.
    location / { error_page 405 =200 /message; return 405; }
  }
}
`,
  )
  const app = start('app', CLIENT_CORE, ['nginx', '-p', root, '-c', join(root, 'nginx.conf')], root)
  await listening(app, APPS[0], APP_PORT.grpc)
  return app
}

export interface Peer {
  readonly name: string
  readonly program: Program
  readonly port: Readonly<Partial<Record<Protocol, number>>>
}

export async function startNginx(folder: string): Promise<Peer> {
  const root = join(folder, 'nginx')
  mkdirSync(root, { recursive: true })
  const upstreams = (['h1', 'grpc'] as const).flatMap((protocol) =>
    APPS.map(
      (ip, i) =>
        `upstream ${protocol}_v${i + 1} { server ${ip}:${APP_PORT[protocol]}; keepalive 320; keepalive_requests 1000000000; }`,
    ),
  )
  writeFileSync(
    join(root, 'nginx.conf'),
    `${nginxHead(root)}http {
  log_format access escape=json '{"t":"$time_iso8601","m":"$request_method","u":"$request_uri","s":$status,"d":$request_time,"up":"$upstream_addr","ua":"$http_user_agent"}';
  access_log ${root}/access.log access; ${nginxCommon(root)}
  split_clients "$request_id" $version { 80% v1; * v2; }
  ${upstreams.join('\n  ')}
  server {
    listen 127.0.0.1:9101 backlog=4096;
    location / {
      proxy_pass http://h1_$version; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }
  }
  server { listen 127.0.0.1:9103 http2 backlog=4096; location / { grpc_pass grpc://grpc_$version; } }
}
`,
  )
  const program = start('nginx', PROXY_CORE, ['nginx', '-p', root, '-c', join(root, 'nginx.conf')], root)
  await listening(program, '127.0.0.1', 9103)
  return { name: 'nginx', program, port: { h1: 9101, grpc: 9103 } }
}

export async function startHaproxy(folder: string): Promise<Peer> {
  const root = join(folder, 'haproxy')
  mkdirSync(root, { recursive: true })
  const section = (protocol: Protocol, port: number): string => {
    const h2 = protocol === 'h1' ? '' : ' proto h2'
    return `frontend in_${protocol}
  bind 127.0.0.1:${port}${h2}
  default_backend split_${protocol}
backend split_${protocol}
  balance roundrobin
  server v1 ${APPS[0]}:${APP_PORT[protocol]} weight 80${h2}
  server v2 ${APPS[1]}:${APP_PORT[protocol]} weight 20${h2}
`
  }
  writeFileSync(
    join(root, 'haproxy.cfg'),
    `global
  maxconn 4096
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-keep-alive
  http-reuse always
${section('h1', 9201)}${section('h2', 9202)}${section('grpc', 9203)}`,
  )
  const program = start('haproxy', PROXY_CORE, ['haproxy', '-f', join(root, 'haproxy.cfg')], root)
  await listening(program, '127.0.0.1', 9203)
  return { name: 'HAProxy', program, port: { h1: 9201, h2: 9202, grpc: 9203 } }
}

/** Where `deploy/setup.sh --bench` puts it. */
const ENVOY = fileURLToPath(new URL('../../../build/bench/envoy', import.meta.url))

/** Undefined where the binary is missing (deploy/setup.sh says how to get it). */
export async function startEnvoy(folder: string): Promise<Peer | undefined> {
  if (!existsSync(ENVOY)) return undefined
  const root = join(folder, 'envoy')
  mkdirSync(root, { recursive: true })
  const port = { h1: 9301, h2: 9302, grpc: 9303 }
  const protocols = ['h1', 'h2', 'grpc'] as const
  const config = {
    static_resources: {
      listeners: protocols.map((protocol) => envoyListener(protocol, port[protocol], root)),
      clusters: protocols.flatMap((protocol) => APPS.map((ip, i) => envoyCluster(protocol, `v${i + 1}`, ip))),
    },
  }
  const file = join(root, 'envoy.json')
  writeFileSync(file, JSON.stringify(config, null, 1))
  const flags = ['--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning']
  const program = start('envoy', PROXY_CORE, [ENVOY, '-c', file, ...flags], root)
  await listening(program, '127.0.0.1', port.grpc)
  return { name: 'Envoy', program, port }
}

const TYPE = 'type.googleapis.com/envoy'

function envoyListener(protocol: Protocol, port: number, folder: string): unknown {
  const policy = {
    permissions: [
      {
        and_rules: {
          rules: [
            {
              or_rules: {
                rules: ['GET', 'POST'].map((method) => ({
                  header: { name: ':method', string_match: { exact: method } },
                })),
              },
            },
            { url_path: { path: { prefix: '/' } } },
          ],
        },
      },
    ],
    principals: [{ direct_remote_ip: { address_prefix: '127.0.0.0', prefix_len: 8 } }],
  }
  return {
    name: protocol,
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [
      {
        filters: [
          {
            name: 'hcm',
            typed_config: {
              '@type': `${TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
              stat_prefix: protocol,
              codec_type: protocol === 'h1' ? 'HTTP1' : 'HTTP2',
              access_log: [
                {
                  name: 'file',
                  typed_config: {
                    '@type': `${TYPE}.extensions.access_loggers.file.v3.FileAccessLog`,
                    path: join(folder, 'access.log'),
                  },
                },
              ],
              route_config: {
                virtual_hosts: [
                  {
                    name: 'all',
                    domains: ['*'],
                    routes: [
                      {
                        match: { prefix: '/' },
                        route: {
                          weighted_clusters: {
                            clusters: [
                              { name: `${protocol}_v1`, weight: 80 },
                              { name: `${protocol}_v2`, weight: 20 },
                            ],
                          },
                        },
                      },
                    ],
                  },
                ],
              },
              http_filters: [
                {
                  name: 'rbac',
                  typed_config: {
                    '@type': `${TYPE}.extensions.filters.http.rbac.v3.RBAC`,
                    rules: { action: 'ALLOW', policies: { allow: policy } },
                  },
                },
                { name: 'router', typed_config: { '@type': `${TYPE}.extensions.filters.http.router.v3.Router` } },
              ],
            },
          },
        ],
      },
    ],
  }
}

function envoyCluster(protocol: Protocol, version: string, ip: string): unknown {
  const name = `${protocol}_${version}`
  return {
    name,
    type: 'STATIC',
    // Envoy's default of 1024 would refuse nothing here, said so that it is not a secret.
    circuit_breakers: { thresholds: [{ max_connections: 4096, max_pending_requests: 4096, max_requests: 4096 }] },
    load_assignment: {
      cluster_name: name,
      endpoints: [
        {
          lb_endpoints: [
            { endpoint: { address: { socket_address: { address: ip, port_value: APP_PORT[protocol] } } } },
          ],
        },
      ],
    },
    ...(protocol === 'h1'
      ? {}
      : {
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              '@type': `${TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions`,
              explicit_http_config: { http2_protocol_options: {} },
            },
          },
        }),
  }
}
