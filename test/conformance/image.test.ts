// The image: its root file system is built by the Dockerfile's own steps (deploy/image/rootfs.ts) and each program is
// started inside it, as the image's user and with nothing of this machine in reach.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { packImage, packLayer, walk } from '../../deploy/image/archive.ts'
import { debianBase } from '../../deploy/image/debian.ts'
import { ignoring, parseDockerfile } from '../../deploy/image/dockerfile.ts'
import { buildImage, runCommand, type Image } from '../../deploy/image/rootfs.ts'

let image: Image
beforeAll(() => {
  image = buildImage()
}, 240_000)

const run = (
  args: readonly string[],
  options: { user?: string; entrypoint?: readonly string[] } = {},
): { status: number | null; stdout: string; stderr: string } => {
  const { entrypoint = image.entrypoint, ...rest } = options
  const [command = '', ...all] = runCommand({ ...image, entrypoint }, args, rest)
  return spawnSync(command, all, { encoding: 'utf8', timeout: 60_000, env: { PATH: '/usr/bin:/bin:/usr/sbin:/sbin' } })
}

describe('the image', () => {
  it.each(['agent', 'waypoint', 'control', 'sandbox', 'analyze', 'explain', 'app'])('starts ambit %s', (program) => {
    const { status, stdout, stderr } = run([program, '--help'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(new RegExp(`ambit ${program}`))
  })

  it('says what it can do when it is started with nothing', () => {
    const { status, stdout } = run([])
    expect(status).toBe(0)
    expect(stdout).toMatch(/agent/)
  })

  it('runs as nobody in particular', () => {
    expect(run(['-u'], { entrypoint: ['id'] }).stdout.trim()).toBe('65532')
  })

  it('loads the addon with its own libraries, and the kernel takes its programs', () => {
    const code = `
      const { hasFeature, netnsCookie, openObject } = await import('/opt/ambit/native/bpf/index.ts')
      const { readdirSync } = await import('node:fs')
      const names = readdirSync('/opt/ambit/bpf/build').filter((name) => name.endsWith('.bpf.o'))
      for (const name of names) {
        const object = openObject('/opt/ambit/bpf/build/' + name)
        // Not every kernel lends programs an iterator over a map; the agent has another then.
        if ('ambit_live' in object.programs) object.programs.ambit_live.autoload = hasFeature('iterator:bpf_sk_storage_map')
        ;(await object.load()).close()
      }
      console.log(names.length, hasFeature('program:sk_lookup'), netnsCookie('/proc/self/ns/net') > 0n)`
    const { stdout, stderr } = run(['/opt/ambit/agent/bin/node', '--input-type=module', '-e', code], {
      user: '0:0',
      entrypoint: ['env'],
    })
    expect(stderr).toBe('')
    expect(stdout.trim()).toMatch(/^[1-9]\d* true true$/)
  })

  it('has no compiler, no tests, no tools of development', () => {
    const modules = readdirSync(join(image.root, 'opt/ambit/node_modules'))
    for (const name of ['typescript', 'vitest', 'node-gyp', 'oxlint']) expect(modules).not.toContain(name)
    for (const path of ['usr/bin/gcc', 'usr/bin/clang', 'usr/bin/python3', 'opt/ambit/.git', 'opt/ambit/test']) {
      expect(existsSync(join(image.root, path)), path).toBe(false)
    }
    const files = readdirSync(join(image.root, 'opt/ambit/agent'), { recursive: true, encoding: 'utf8' })
    expect(files.filter((path) => path.endsWith('.test.ts'))).toEqual([])
    expect(image.size).toBeLessThan(240e6)
  })
})

describe('the archive of the image', () => {
  it('has our code in a layer of its own that is small, above what seldom changes', async () => {
    const { layers, config } = await packImage(image, 'ambit.local/ambit:test', () => undefined)
    expect(layers.map((layer) => layer.name)).toEqual(['base', 'packages', 'build', 'context'])
    const total = layers.reduce((sum, layer) => sum + layer.compressed, 0)
    expect(total).toBeLessThan(64e6)
    expect(layers[2]!.compressed + layers[3]!.compressed).toBeLessThan(total / 20)
    expect(JSON.parse(config)).toMatchObject({
      config: {
        User: '65532:65532',
        Entrypoint: ['/opt/ambit/agent/bin/ambit'],
        Cmd: ['--help'],
        WorkingDir: '/opt/ambit',
      },
    })
  })

  it('has a base of the same bytes when it is built again', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ambit-base-'))
    try {
      const digests: string[] = []
      for (const name of ['one', 'two']) {
        const base = join(folder, name)
        mkdirSync(base)
        debianBase(base)
        const paths: string[] = []
        walk(base, '', (path) => paths.push(path))
        digests.push((await packLayer('base', base, paths, join(folder, 'store'))).diffId)
      }
      expect(digests[0]).toBe(digests[1])
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe('the reader of the Dockerfile', () => {
  it('refuses by line what it would carry out otherwise than an engine', () => {
    expect(() => parseDockerfile('FROM a\nADD x y')).toThrow('Dockerfile:2: this instruction is not supported: ADD x y')
    expect(() => parseDockerfile('RUN true')).toThrow('Dockerfile:1: nothing may stand before FROM')
    expect(() => parseDockerfile('FROM a\nRUN apt-get install x')).toThrow('Dockerfile:2: apt-get steps have one form')
    expect(() => parseDockerfile('FROM a\nRUN true && \\\n false')).toThrow('stand on one line')
    expect(() => parseDockerfile('FROM a\nCOPY --chown=1 a b')).toThrow('this form of COPY is not supported')
  })

  it('begins a stage where the stage it is made from ended', () => {
    const { stages, user, workdir } = parseDockerfile('FROM a AS b\nWORKDIR /src\nFROM b\nRUN true\nUSER 5:5')
    expect(stages.map(({ name, base }) => [name, base])).toEqual([
      ['b', 'a'],
      ['1', 'b'],
    ])
    expect([user, workdir]).toEqual(['5:5', '/src'])
  })

  it('leaves out what .dockerignore names, and what lies below it', () => {
    const ignored = ignoring('node_modules\n**/*.test.ts\nbpf/test\n')
    for (const path of ['node_modules/a/b.js', 'x.test.ts', 'agent/http/x.test.ts', 'bpf/test/a.c', 'bpf/test']) {
      expect(ignored(path), path).toBe(true)
    }
    for (const path of ['agent/node_modules', 'agent/test.ts', 'bpf/tests', 'x_test.ts']) {
      expect(ignored(path), path).toBe(false)
    }
  })
})
