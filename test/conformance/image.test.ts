// The image: its root file system is built by the Dockerfile's own steps, and every program of it starts inside.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { buildImage, type Image } from '../../deploy/image/rootfs.ts'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
let image: Image

/** Runs the image's entry point in its root. */
function inImage(...args: string[]): { status: number | null; out: string } {
  const result = spawnSync(join(root, 'deploy/image/rootfs.sh'), ['--run', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status: result.status, out: `${result.stdout}${result.stderr}` }
}

describe('the image', () => {
  beforeAll(() => {
    image = buildImage()
  }, 300_000)

  it('stays below 300 MB', () => {
    expect(image.size).toBeLessThan(300 * 1024 * 1024)
  })

  for (const program of ['agent', 'waypoint', 'control', 'sandbox', 'analyze', 'explain']) {
    it(`starts ambit ${program}`, () => {
      const { status, out } = inImage(program, '--help')
      expect(out).toContain('Usage: ambit')
      expect(status).toBe(0)
    })
  }
})
