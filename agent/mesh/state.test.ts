// Who watches the state hears of each change once, with what was there before.
import { expect, it } from 'vitest'
import { samplePolicy, sampleService, sampleWorkload } from './samples.ts'
import { defaultSettings } from './settings.ts'
import { MeshState, type MeshChange } from './state.ts'

it('tells of each change once, after it, with what was there before', () => {
  const state = new MeshState()
  const heard: MeshChange[] = []
  const versions: number[] = []
  const stop = state.watch((change) => {
    heard.push(change)
    versions.push(state.version)
  })
  const one = sampleWorkload({ name: 'x', addresses: ['10.0.0.1'] })
  const two = { ...one, addresses: ['10.0.0.2'] }
  state.setWorkload(one)
  state.setWorkload(two)
  state.removeWorkload(one.uid)
  state.removeWorkload(one.uid)
  const service = sampleService({ name: 's' })
  state.setService(service)
  state.removeService(`default/${service.hostname}`)
  const policy = samplePolicy('DENY', {}, { scope: 'workload' })
  state.setPolicy(policy)
  state.setPolicy(policy)
  state.removePolicy('default/deny')
  const settings = { ...defaultSettings, trustDomain: 'x.y' }
  state.settings = settings
  expect(heard).toEqual([
    { kind: 'workload', before: undefined, after: one, displaced: [] },
    { kind: 'workload', before: one, after: two, displaced: [] },
    { kind: 'workload', before: two, after: undefined, displaced: [] },
    { kind: 'service', before: undefined, after: service },
    { kind: 'service', before: service, after: undefined },
    { kind: 'policy', before: undefined, after: policy },
    { kind: 'policy', before: policy, after: policy },
    { kind: 'policy', before: policy, after: undefined },
    { kind: 'settings', before: defaultSettings, after: settings },
  ])
  // Each of them is a version of its own.
  expect(new Set(versions).size).toBe(versions.length)
  stop()
  state.setWorkload(one)
  expect(heard).toHaveLength(9)
})

it('tells who loses an address to another', () => {
  const state = new MeshState()
  const one = sampleWorkload({ name: 'x', addresses: ['10.0.0.1', '10.0.0.2'] })
  state.setWorkload(one)
  const heard: MeshChange[] = []
  state.watch((change) => heard.push(change))
  const two = sampleWorkload({ name: 'y', addresses: ['10.0.0.2'] })
  state.setWorkload(two)
  expect(heard).toEqual([{ kind: 'workload', before: undefined, after: two, displaced: [one] }])
})
