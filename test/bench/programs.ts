// Programs of a bench as processes: pinned to a core, with their output in a file, their CPU time read from /proc, ended by their own
// process id. Must not live here: which programs (http/), sandboxes (sandbox.ts).
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const nodeBinary = fileURLToPath(new URL('../../agent/bin/node', import.meta.url))
export const ambitProgram = fileURLToPath(new URL('../../agent/bin/ambit', import.meta.url))

/** The load generators and the servers they reach. */
export const CLIENT_CORE = 0
/** Whatever is measured. */
export const PROXY_CORE = 1

/** /proc counts CPU time in these (USER_HZ is 100 on every Linux Node runs on). */
const TICK_MS = 10
const STOP_MS = 8_000
const START_MS = 20_000

export interface Program {
  readonly name: string
  readonly pid: number
  readonly output: string
  stop(): Promise<void>
}

/** Starts a program whose output is appended to `FOLDER/NAME.log`. */
export function start(name: string, core: number, command: readonly string[], folder: string): Program {
  const output = join(folder, `${name}.log`)
  const fd = openSync(output, 'a')
  const child = spawn('taskset', ['-c', String(core), ...command], { stdio: ['ignore', fd, fd], cwd: folder })
  closeSync(fd)
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return { name, pid: child.pid ?? -1, output, stop: () => stop(child, ended) }
}

async function stop(child: ChildProcess, ended: Promise<void>): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await ended
  clearTimeout(timer)
}

/** Waits until a program takes connections; throws with its last words if it does not. */
export async function listening(program: Program, host: string, port: number): Promise<void> {
  await until(program, `listens on ${host}:${port}`, () => {
    return new Promise((resolve) => {
      const socket = connect({ host, port }, () => {
        socket.destroy()
        resolve(true)
      })
      socket.on('error', () => resolve(false))
    })
  })
}

export async function until(program: Program, what: string, test: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + START_MS
  while (!(await test())) {
    if (performance.now() > end) throw new Error(`${program.name} never ${what}: ${lastWords(program)}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export function lastWords(program: Program): string {
  return readFileSync(program.output, 'utf8').trim().split('\n').slice(-5).join(' | ').slice(-1_500)
}

/** User and system time of a process with its children that live, ms, all threads; 10 ms is its grain. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  let sum = cpuTicks(stat) * TICK_MS
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  for (const child of children === '' ? [] : children.split(' ')) sum += cpuMs(Number(child))
  return sum
}

/** utime + stime of a line of /proc/PID/stat (proc(5), fields 14 and 15). The name in brackets may hold blanks and brackets. */
export function cpuTicks(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** usage_usec of a cgroup's cpu.stat. */
export function parseCpuStat(text: string): number {
  const usage = /^usage_usec (\d+)$/m.exec(text)
  if (!usage) throw new Error(`no usage_usec in cpu.stat: ${text.slice(0, 200)}`)
  return Number(usage[1])
}

export interface Memory {
  readonly rssMb: number
  /** Highest ever. */
  readonly peakMb: number
}

export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const read = (field: string): number =>
    Number(new RegExp(String.raw`^${field}:\s+(\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN) / 1024
  return { rssMb: read('VmRSS'), peakMb: read('VmHWM') }
}

/** Runs a load generator to its end, on the client's core. Throws if it fails or takes longer than `limitMs`. */
export async function load(command: readonly string[], limitMs: number, cwd: string): Promise<string> {
  const child = spawn('taskset', ['-c', String(CLIENT_CORE), ...command], { stdio: ['ignore', 'pipe', 'pipe'], cwd })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs)
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  clearTimeout(timer)
  if (code !== 0) throw new Error(`${command[0]} failed (${code ?? 'killed'}): ${(err || out).slice(-800)}`)
  return out
}
