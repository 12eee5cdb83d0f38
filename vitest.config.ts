// `unit` runs beside the code and needs nothing; `system` needs root and a kernel (test/ and *.kernel.test.ts).
// `kubernetes` (alone: npm run test:kubernetes) brings real clusters up; setup.sh has built their programs before.
import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [
            'agent/**/*.test.ts',
            'native/**/*.test.ts',
            'deploy/**/*.test.ts',
            'test/*.test.ts',
            'test/bench/*.test.ts',
          ],
          exclude: ['**/*.kernel.test.ts', '**/node_modules/**', 'build/**'],
          // One more than the default on a machine of two cores; modules are read once by each: half the time.
          maxWorkers: availableParallelism(),
          isolate: false,
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'system',
          include: ['**/*.kernel.test.ts', 'test/{mesh,kernel,native,conformance,fuzz,hostile}/**/*.test.ts'],
          exclude: ['**/node_modules/**', 'build/**'],
          // Each makes namespaces, cgroups and pins of its own, and waits more than it works.
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
          // Real kernel, real processes, a machine that others may load: one second chance, and the closing line tells of each.
          retry: 1,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'soak',
          include: ['test/soak/**/*.test.ts'],
          // Much load for its time: beside more than one other it would measure those.
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
          retry: 1,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'kubernetes control plane',
          include: ['test/kube/control-plane/**/*.test.ts'],
          // A cluster without nodes each.
          maxWorkers: 3,
          sequence: { groupOrder: 3 },
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'kubernetes',
          include: ['test/kube/*.test.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 4 },
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'kubernetes under load',
          include: ['test/kube/load/**/*.test.ts'],
          // They need the processors for themselves.
          fileParallelism: false,
          sequence: { groupOrder: 5 },
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
    ],
    reporters: ['default', './test/world/closing-line.ts'],
  },
})
