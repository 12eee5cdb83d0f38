// A container runtime as far as CNI goes: pods are network namespaces, the first conflist of a folder is what they are put
// into, real plugins are run in its order (CNI 1.1, section 3). Must not live here: expectations.
import { mkdirSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { callPlugin, type Result } from '../../native/cni/test/plugin.ts'
import { ip, type Pod, type World } from '../world/netns.ts'

interface ConfList {
  readonly cniVersion: string
  readonly name: string
  readonly plugins: readonly { readonly type: string }[]
}

/** A plugin refused: its type, and what it said. */
export class PluginError extends Error {
  readonly type: string
  readonly result: Result

  constructor(type: string, command: string, result: Result) {
    super(`${type} ${command}: ${result.stdout}${result.stderr}`)
    this.type = type
    this.result = result
  }
}

/** A pod's sandbox: its namespace, and what the chain said at the end. */
export interface Sandbox {
  readonly id: string
  readonly args: string
  readonly pod: Pod
}

export interface PodName {
  readonly namespace: string
  readonly name: string
  readonly uid?: string
}

export class Runtime {
  readonly #world: World
  readonly #confDir: string
  readonly #binDirs: readonly string[]
  readonly #results = new Map<string, unknown>()
  #count = 0

  constructor(world: World, confDir: string, binDirs: readonly string[]) {
    this.#world = world
    this.#confDir = confDir
    this.#binDirs = binDirs
  }

  get list(): ConfList {
    const file = readdirSync(this.#confDir)
      .sort()
      .find((name) => /\.(conf|conflist|json)$/.test(name))
    if (file === undefined) throw new Error(`no network in ${this.#confDir}`)
    const conf = JSON.parse(readFileSync(join(this.#confDir, file), 'utf8')) as ConfList & { readonly type: string }
    return file.endsWith('.conflist') ? conf : { ...conf, plugins: [conf] }
  }

  /** A namespace with nothing in it but what the chain put there. Throws PluginError, after the chain's DEL. */
  async run({ namespace, name, uid }: PodName): Promise<Sandbox> {
    const number = ++this.#count
    const id = `${this.#world.id}-c${number}`
    ip('netns', 'add', id)
    const cgroup = `${this.#world.cgroup}/pods/c${number}`
    mkdirSync(cgroup, { recursive: true })
    const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name}`
    const pod: Pod = { name: id, netns: `/run/netns/${id}`, v4: '', v6: '', cgroup, port: '' }
    const sandbox: Sandbox = { id, args: uid === undefined ? args : `${args};K8S_POD_UID=${uid}`, pod }
    let previous: unknown
    try {
      for (const plugin of this.list.plugins) {
        const result = await this.#call('ADD', plugin, sandbox, previous)
        if (result.code !== 0) throw new PluginError(plugin.type, 'ADD', result)
        previous = JSON.parse(result.stdout)
      }
    } catch (error) {
      await this.stop(sandbox)
      throw error
    }
    this.#results.set(id, previous)
    const { ips = [] } = previous as { ips?: readonly { readonly address: string }[] }
    const addresses = ips.map(({ address }) => address.split('/')[0]!)
    return {
      ...sandbox,
      pod: {
        ...pod,
        v4: addresses.find((address) => !address.includes(':')) ?? '',
        v6: addresses.find((address) => address.includes(':')) ?? '',
      },
    }
  }

  /** What each plugin says to CHECK. */
  async check(sandbox: Sandbox): Promise<Result[]> {
    const results = []
    for (const plugin of this.list.plugins) {
      results.push(await this.#call('CHECK', plugin, sandbox, this.#results.get(sandbox.id)))
    }
    return results
  }

  /** DEL, last plugin first. */
  async release(sandbox: Sandbox): Promise<Result[]> {
    const results = []
    for (const plugin of this.list.plugins.toReversed()) {
      results.push(await this.#call('DEL', plugin, sandbox, this.#results.get(sandbox.id)))
    }
    return results
  }

  /** Releases it and removes its namespace. */
  async stop(sandbox: Sandbox): Promise<Result[]> {
    const results = await this.release(sandbox)
    ip('netns', 'del', sandbox.id)
    return results
  }

  /** A command that is of no container. */
  network(command: 'STATUS' | 'GC', type: string, more: object = {}): Promise<Result> {
    const plugin = this.list.plugins.find((entry) => entry.type === type)!
    return this.#call(command, { ...plugin, ...more }, undefined, undefined)
  }

  #call(command: string, plugin: { readonly type: string }, sandbox: Sandbox | undefined, previous: unknown) {
    const { cniVersion, name } = this.list
    const config = { ...plugin, cniVersion, name, ...(previous === undefined ? {} : { prevResult: previous }) }
    const program = this.#binDirs
      .map((dir) => join(dir, plugin.type))
      .find((path) => readdirSync(join(path, '..')).includes(plugin.type))
    if (program === undefined) throw new Error(`no plugin ${plugin.type} in ${this.#binDirs.join(', ')}`)
    // The node's own network is the world's, not this machine's.
    const within = ['nsenter', `--net=${this.#world.outside.netns}`]
    return callPlugin(program, command, {
      input: JSON.stringify(config),
      within,
      environment: {
        CNI_CONTAINERID: sandbox?.id,
        CNI_NETNS: sandbox?.pod.netns,
        CNI_IFNAME: sandbox && 'eth0',
        CNI_ARGS: sandbox?.args,
        CNI_PATH: this.#binDirs.join(':'),
      },
    })
  }
}
