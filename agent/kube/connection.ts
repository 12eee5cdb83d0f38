// Where the API server is and how to show who one is: from inside a pod (service account), or from a kubeconfig. Must not live
// here: requests (client.ts).
//
// Inside a pod three files say it all and are read here. A kubeconfig may ask for plugins, proxies and a dozen kinds of
// credentials: @kubernetes/client-node knows them. It costs 90 MB of memory, so it is loaded only then.
import { existsSync, readFileSync } from 'node:fs'
import type { Agent, RequestOptions } from 'node:https'
import { dirname, join, resolve } from 'node:path'
import { parse } from 'yaml'
import { systemClock, type Clock } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'

export interface Credentials {
  /** Of the TLS connection: a change means new connections. */
  readonly tls: {
    readonly ca?: string | Buffer
    readonly cert?: string | Buffer
    readonly key?: string | Buffer
    readonly servername?: string
    readonly rejectUnauthorized?: boolean
  }
  readonly headers: Readonly<Record<string, string>>
  /** Only where the connection goes through a proxy. */
  readonly agent?: Agent
}

export interface Connection {
  readonly server: URL
  /** What objects without a namespace are looked for in. */
  readonly namespace: string
  /** What to show now; files are read again when they are older than a minute. */
  credentials(): Promise<Credentials>
  /** The server refused them: the next ones are read anew. */
  refused(): void
}

export interface ConnectOptions {
  /** Path of a kubeconfig; else $KUBECONFIG, else inside a pod its service account, else ~/.kube/config. */
  readonly kubeconfig?: string
  readonly context?: string
  readonly clock?: Clock
  readonly environment?: Readonly<Record<string, string | undefined>>
  /** Where a pod's service account is; for tests. */
  readonly serviceAccountDir?: string
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
/** As client-go. A projected token is renewed by the kubelet when 80 % of its life (an hour by default) is over. */
const REREAD_MS = 60_000

/** Throws KUBE_NO_CLUSTER when nothing says where the cluster is, KUBE_CONFIG_INVALID when what says it cannot be used. */
export async function connect(options: ConnectOptions = {}): Promise<Connection> {
  const { environment = process.env, clock = systemClock, serviceAccountDir = SERVICE_ACCOUNT } = options
  const named = options.kubeconfig ?? environment['KUBECONFIG']
  const host = environment['KUBERNETES_SERVICE_HOST']
  if (!named && !options.context && host && existsSync(join(serviceAccountDir, 'token')))
    return inCluster(host, environment['KUBERNETES_SERVICE_PORT'] ?? '443', serviceAccountDir, clock)
  const files = (named ?? join(environment['HOME'] ?? '/root', '.kube', 'config')).split(':').filter(Boolean)
  if (!files.some((file) => existsSync(file)))
    throw new AmbitError('KUBE_NO_CLUSTER', `nothing says where the cluster is: there is no ${files.join(', ')}`, {
      hint: 'Name a kubeconfig with --kubeconfig or KUBECONFIG.',
    })
  return fromKubeconfig(files, options.context, clock)
}

/** Keeps what `read` gave for a minute, or until it is refused. */
function kept<T>(clock: Clock, read: () => T): { get: () => T; forget: () => void } {
  let value: { readonly at: number; readonly of: T } | undefined
  return {
    get() {
      if (!value || clock.monotonic() - value.at > REREAD_MS) value = { at: clock.monotonic(), of: read() }
      return value.of
    },
    forget: () => void (value = undefined),
  }
}

function inCluster(host: string, port: string, folder: string, clock: Clock): Connection {
  let last: Credentials | undefined
  const credentials = kept(clock, () => {
    try {
      const token = readFileSync(join(folder, 'token'), 'utf8').trim()
      last = { tls: { ca: readFileSync(join(folder, 'ca.crt')) }, headers: { authorization: `Bearer ${token}` } }
    } catch (error) {
      // A moment without the file, or a full table of descriptors: what was read before may still do.
      if (!last)
        throw new AmbitError(
          'KUBE_CONFIG_INVALID',
          `the service account in ${folder} cannot be read: ${messageOf(error)}`,
          {
            cause: error,
          },
        )
    }
    return last
  })
  const namespace = join(folder, 'namespace')
  return {
    server: new URL(`https://${host.includes(':') ? `[${host}]` : host}:${port}`),
    namespace: existsSync(namespace) ? readFileSync(namespace, 'utf8').trim() : 'default',
    credentials: async () => credentials.get(),
    refused: credentials.forget,
  }
}

async function fromKubeconfig(
  files: readonly string[],
  context: string | undefined,
  clock: Clock,
): Promise<Connection> {
  const { KubeConfig } = await import('@kubernetes/client-node')
  const load = (): InstanceType<typeof KubeConfig> => {
    const config = new KubeConfig()
    const [first, ...others] = files.filter((file) => existsSync(file))
    config.loadFromFile(first!)
    for (const file of others) {
      const other = new KubeConfig()
      other.loadFromFile(file)
      config.mergeConfig(other, true)
    }
    if (context !== undefined) config.setCurrentContext(context)
    return config
  }
  let config: InstanceType<typeof KubeConfig>
  try {
    config = load()
  } catch (error) {
    throw new AmbitError('KUBE_CONFIG_INVALID', `${files.join(', ')} cannot be used: ${messageOf(error)}`, {
      cause: error,
    })
  }
  const cluster = config.getCurrentCluster()
  if (!cluster)
    throw new AmbitError(
      'KUBE_CONFIG_INVALID',
      `${files.join(', ')} names no cluster for the context '${config.getCurrentContext() || context || ''}'`,
      {
        hint: `Contexts: ${
          config
            .getContexts()
            .map((one) => one.name)
            .join(', ') || 'none'
        }.`,
      },
    )
  const user = config.getCurrentUser()
  // A plugin keeps its own credentials until they expire; starting it every minute would be slow, and a nuisance.
  const keeps = Boolean(user?.exec ?? user?.authProvider)
  const tokenFile = tokenFileOf(files, user?.name)
  const configs = kept(clock, () => {
    if (!keeps) config = load()
    return config
  })
  const tokens = kept(clock, () => readFileSync(tokenFile!, 'utf8').trim())
  return {
    server: new URL(cluster.server),
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? 'default',
    async credentials() {
      const options: RequestOptions = { headers: {} }
      try {
        await configs.get().applyToHTTPSOptions(options)
      } catch (error) {
        throw new AmbitError('KUBE_CONFIG_INVALID', `no credentials from ${files.join(', ')}: ${messageOf(error)}`, {
          cause: error,
        })
      }
      const { ca, cert, key, servername, rejectUnauthorized, auth } = options
      const headers: Record<string, string> = {}
      for (const [name, value] of Object.entries(options.headers as Record<string, string>))
        headers[name.toLowerCase()] = value
      if (tokenFile) headers['authorization'] = `Bearer ${tokens.get()}`
      if (auth) headers['authorization'] = `Basic ${Buffer.from(auth).toString('base64')}`
      return {
        tls: {
          ...(ca ? { ca: ca as Buffer } : {}),
          ...(cert ? { cert: cert as Buffer } : {}),
          ...(key ? { key: key as Buffer } : {}),
          ...(servername ? { servername } : {}),
          ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
        },
        headers,
        ...(cluster.proxyUrl ? { agent: options.agent as Agent } : {}),
      }
    },
    refused() {
      if (keeps) config = load()
      configs.forget()
      tokens.forget()
    },
  }
}

/** `tokenFile` of a user, which the client does not know (it looks for another spelling than kubectl). */
function tokenFileOf(files: readonly string[], user: string | undefined): string | undefined {
  for (const file of files.filter((one) => existsSync(one))) {
    const { users } = parse(readFileSync(file, 'utf8')) as {
      users?: { name?: string; user?: { tokenFile?: string } }[]
    }
    const found = users?.find((one) => one.name === user)?.user?.tokenFile
    if (found) return resolve(dirname(file), found)
  }
  return undefined
}
