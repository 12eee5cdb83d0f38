import { describe, expect, it } from 'vitest'
import { parseImages } from './images.ts'

describe('images.yaml', () => {
  it('maps an image to arguments or to a line for the shell', () => {
    const { commands, problems } = parseImages('a:v1: [ambit, app, echo]\nb: sleep 1\n', 'images.yaml')
    expect([...commands]).toEqual([
      ['a:v1', ['ambit', 'app', 'echo']],
      ['b', ['/bin/sh', '-c', 'sleep 1']],
    ])
    expect(problems).toEqual([])
  })

  it('names the line of a command that is none, and keeps the others', () => {
    const { commands, problems } = parseImages('a: [x, 1]\nb: [y]\nc: 5\n', 'images.yaml')
    expect([...commands.keys()]).toEqual(['b'])
    expect(problems.map((one) => [one.line, one.field, one.message])).toEqual([
      [1, 'a', 'A command must be a list of strings or one string.'],
      [3, 'c', 'A command must be a list of strings or one string.'],
    ])
  })

  it('is a map, or nothing at all', () => {
    expect(parseImages('- a\n', 'images.yaml').problems).toMatchObject([
      { message: 'images.yaml must be a map of image names to commands.' },
    ])
    expect(parseImages('', 'images.yaml')).toEqual({ commands: new Map(), problems: [] })
    expect(parseImages('a: [', 'images.yaml').problems.length).toBeGreaterThan(0)
  })
})
