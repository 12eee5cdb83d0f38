// Errors: the verifier's cause picked out of its log, hints by call.
import { describe, expect, it } from 'vitest'
import { BpfError, VerifierError, check, failure, nameOf, summarize } from './errors.ts'

describe('the summary of a verifier log', () => {
  it('is the last line that is not a statistic', () => {
    const log = ['0: (b7) r0 = 0', 'unreachable insn 3', 'processed 1 insns (limit 1000000)', '']
    expect(summarize(log)).toBe('unreachable insn 3')
  })

  it('keeps the instruction when the last line only names a register', () => {
    const log = ['7: (79) r1 = *(u64 *)(r0 +0)', "R0 invalid mem access 'map_value_or_null'"]
    expect(summarize(log)).toBe("7: (79) r1 = *(u64 *)(r0 +0): R0 invalid mem access 'map_value_or_null'")
  })

  it('says so when there is nothing to read', () => {
    expect(summarize(['processed 3 insns (limit 1000000)'])).toBe('no log')
  })

  it('stands in the message, and the whole log beside it', () => {
    const error = new VerifierError(13, 'connect4', ['math between ctx pointer', 'processed 1 insns (limit 1)'])
    expect(error).toMatchObject({ code: 'EACCES', program: 'connect4', summary: 'math between ctx pointer' })
    expect(error.message).toBe("The kernel's verifier refused program connect4: math between ctx pointer")
    expect(error.log).toHaveLength(2)
  })
})

describe('a failed call', () => {
  it('names what was done, the call, the errno and what to try', () => {
    const error = failure(1, 'BPF_LINK_CREATE', 'Attaching x to /sys/fs/cgroup')
    expect(error).toBeInstanceOf(BpfError)
    expect(error).toMatchObject({ code: 'EPERM', errno: 1, syscall: 'BPF_LINK_CREATE' })
    expect(error.message).toMatch(
      /^Attaching x to \/sys\/fs\/cgroup failed: BPF_LINK_CREATE answered EPERM\. .*CAP_BPF/,
    )
  })

  it('is told from a result by its sign', () => {
    expect(check(3, 'dup', 'x')).toBe(3)
    expect(() => check(-9, 'dup', 'Duplicating 7')).toThrow('Duplicating 7 failed: dup answered EBADF')
  })

  it('names errnos that libc does not know', () => {
    expect(nameOf(524)).toBe('ENOTSUPP')
    expect(nameOf(9999)).toBe('E9999')
  })
})
