// The verdict: may two readers of the same bytes have seen what they saw? Must not live here: reading, generating.
import type { Message, Reading } from './message.ts'

/** What the peer refuses and the codec takes, with the reason why that is right. Any other refusal is a finding. */
const STRICTER_PEER: Readonly<Record<string, string>> = {
  HPE_INVALID_METHOD: 'its list of methods is closed; any token is a method (RFC 9110 §9.1)',
}

/** '' if they agree, else what differs. `ended`: the bytes are all there will be, so an unfinished message has no clean end. */
export function compare(ours: Reading, theirs: Reading, told: (reason: string) => void): string {
  for (const [index, message] of ours.messages.entries()) {
    if (!message.complete) break
    const other = theirs.messages[index]
    if (!other?.complete) {
      if (STRICTER_PEER[theirs.stopped] !== undefined) {
        told(theirs.stopped)
        return ''
      }
      return `message ${index} is complete here, and not there (${theirs.stopped || 'it waits'})`
    }
    const difference = differs(message, other)
    if (difference !== '') return `message ${index} differs in its ${difference}`
    if (message.tunnel) return ''
  }
  if (ours.stopped !== '') return ''
  // Not refused and not closed: what is not complete here must not be complete there, or its end lies elsewhere.
  const complete = ours.messages.filter((one) => one.complete).length
  const there = theirs.messages.filter((one) => one.complete).length
  if (there > complete) return `${there} messages are complete there, ${complete} here`
  return ''
}

function differs(a: Message, b: Message): string {
  if (a.start !== b.start) return 'method or status'
  if (a.target !== b.target) return 'target'
  if (a.fields !== b.fields) return 'fields'
  if (a.body !== b.body) return 'body'
  if (a.trailers !== b.trailers) return 'trailers'
  return a.tunnel === b.tunnel ? '' : 'end: a tunnel begins for one of them only'
}
