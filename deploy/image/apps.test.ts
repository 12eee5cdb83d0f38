// Which images of applications manifests ask for, and what runs in them.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { fullName, imagesOf } from './apps.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ambit-apps-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it.each([
  ['web', 'docker.io/library/web:latest'],
  ['web:v1', 'docker.io/library/web:v1'],
  ['team/web:v1', 'docker.io/team/web:v1'],
  ['localhost/web', 'localhost/web:latest'],
  ['registry:5000/team/web', 'registry:5000/team/web:latest'],
  ['ghcr.io/a/b:2', 'ghcr.io/a/b:2'],
  ['web@sha256:0000', undefined],
  ['', undefined],
])('writes %s as a runtime does', (image, full) => {
  expect(fullName(image)).toBe(full)
})

it('finds the images of every container, with their ports and what images.yaml says', () => {
  mkdirSync(join(folder, 'below'))
  writeFileSync(join(folder, 'images.yaml'), 'idle: exec sleep infinity\nweb:v2: [ambit, app, echo, --delay, "5"]\n')
  writeFileSync(
    join(folder, 'below/a.yaml'),
    `kind: Deployment
spec:
  template:
    spec:
      initContainers: [{ name: i, image: ambit.local/busybox:1 }]
      containers:
        - { name: a, image: 'web:v2', ports: [{ containerPort: 8080, name: http }, { containerPort: 53, protocol: UDP }] }
        - { name: b, image: idle }
---
kind: Pod
spec: { containers: [{ name: a, image: 'web:v2', ports: [{ containerPort: 9000 }] }] }
---
broken: [
`,
  )
  writeFileSync(
    join(folder, 'b.json'),
    JSON.stringify({ kind: 'List', items: [{ spec: { containers: [{ image: 'x:1' }] } }] }),
  )
  writeFileSync(join(folder, '.hidden.yaml'), 'spec: { containers: [{ image: hidden }] }')
  expect(imagesOf([folder])).toEqual([
    { name: 'docker.io/library/idle:latest', command: ['/bin/sh', '-c', 'exec sleep infinity'], ports: [] },
    {
      name: 'docker.io/library/web:v2',
      command: ['ambit', 'app', 'echo', '--delay', '5'],
      ports: ['9000', 'http:8080'],
    },
    { name: 'docker.io/library/x:1', command: undefined, ports: [] },
  ])
})
