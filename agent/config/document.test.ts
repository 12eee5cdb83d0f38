import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeFile, MAX_FILE_BYTES, readDocuments } from './document.ts'

const problemsOf = (text: string) => readDocuments(text, 'f.yaml').flatMap((one) => one.problems)

describe('reading documents', () => {
  it('gives each document its own value and lines of the whole file', () => {
    const documents = readDocuments('# first\na: 1\n---\n\nb:\n  - x: 1\n  - y: 2\n', 'f.yaml')
    expect(documents.map((one) => one.value)).toEqual([{ a: 1 }, { b: [{ x: 1 }, { y: 2 }] }])
    expect(documents[1]?.origin.line(['b', 1, 'y'])).toBe(7)
  })

  it('answers the line of the nearest parent for a field that is not there', () => {
    const [document] = readDocuments('a:\n  b:\n    c: 1\n', 'f.yaml')
    expect(document?.origin.line(['a', 'b', 'missing', 0])).toBe(2)
    expect(document?.origin.line([])).toBe(1)
  })

  it('leaves out documents that hold only comments', () => {
    expect(readDocuments('# nothing\n---\n# here\n---\n', 'f.yaml')).toEqual([])
  })

  it('takes JSON, directives, explicit ends and a document on the line of its marker', () => {
    const text = '{"a": 1}\n...\n%YAML 1.2\n---\nb: 2\n--- {c: 3}\n'
    expect(readDocuments(text, 'f.yaml').map((one) => one.value)).toEqual([{ a: 1 }, { b: 2 }, { c: 3 }])
  })

  it('keeps the documents after a broken one', () => {
    const documents = readDocuments('a: [1, 2\n---\nb: "open\n---\nc: 3\n', 'f.yaml')
    expect(documents.map((one) => one.problems.length > 0)).toEqual([true, true, false])
    expect(documents[2]?.value).toEqual({ c: 3 })
  })

  it('refuses a key that appears twice in one map, with its line', () => {
    expect(problemsOf('a:\n  b: 1\n  c: 2\n  b: 3\n')).toMatchObject([
      { code: 'CONFIG_YAML_INVALID', line: 4, field: 'a.b', message: 'The key "b" appears twice in one map.' },
    ])
  })

  it('refuses an alias bomb without expanding it', () => {
    let bomb = 'a: &a [x,x,x,x,x,x,x,x,x,x]\n'
    for (const [index, key] of 'bcdefghij'.split('').entries())
      bomb += `${key}: &${key} [${Array(10).fill(`*${'abcdefghi'[index]}`).join(',')}]\n`
    expect(problemsOf(bomb).map((one) => one.message)).toEqual([
      "The document's aliases expand to more than 100 copies, or refer to nothing.",
    ])
  })

  it('takes merge keys and a few aliases', () => {
    const [document] = readDocuments('base: &base {x: 1}\nuse:\n  <<: *base\n  y: 2\n', 'f.yaml')
    expect(document?.value).toMatchObject({ use: { x: 1, y: 2 } })
  })

  it('refuses a document nested too deeply', () => {
    expect(problemsOf(`${'a: {'.repeat(300)}${'}'.repeat(300)}`).length).toBeGreaterThan(0)
    expect(problemsOf(`${'['.repeat(5000)}${']'.repeat(5000)}`).length).toBeGreaterThan(0)
  })

  it('refuses __proto__ as a field', () => {
    expect(problemsOf('metadata:\n  __proto__: {x: 1}\n')).toMatchObject([
      { line: 2, message: '__proto__ is no field.' },
    ])
  })

  it('still names what a broken document declares', () => {
    const [document] = readDocuments(
      'apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  namespace: b\nspec: {ports: [}\n',
      'f.yaml',
    )
    expect(document?.value).toMatchObject({ kind: 'Service', metadata: { name: 'a', namespace: 'b' } })
    expect(document?.problems.length).toBeGreaterThan(0)
  })

  it('refuses bytes that are no UTF-8 and files over the limit', () => {
    expect(decodeFile(new Uint8Array([0xff, 0xfe]), 'f')).toMatchObject({ code: 'CONFIG_YAML_INVALID' })
    expect(decodeFile(new Uint8Array(MAX_FILE_BYTES + 1), 'f')).toMatchObject({ code: 'CONFIG_TOO_LARGE' })
  })

  it('never throws, whatever the text', () => {
    const words = fc.constantFrom(
      'a: ',
      '- ',
      '\n',
      '  ',
      '---\n',
      '...',
      '"',
      "'",
      '[',
      ']',
      '{',
      '}',
      '*a',
      '&a ',
      '|',
      '>',
      '!!',
      '%',
      '#',
      ': ',
      '? ',
      '<<: ',
      'kind: Pod',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words, { maxLength: 40 }).map((list) => list.join('')),
        ),
        (text) => {
          for (const document of readDocuments(text, 'f.yaml')) {
            expect(document.origin.line(['a', 0])).toBeGreaterThanOrEqual(1)
            expect(document.problems.length > 0 || document.value !== undefined).toBe(true)
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})
