// Who may have what from control: an agent acts for pods that run on its node now, a waypoint for itself. Pure: caller,
// request and configuration in, identity or refusal out. Must not live here: tokens (jwt.ts), certificates (pki/).
import { AmbitError } from '../../base/errors.ts'
import { SYSTEM_NAMESPACE } from '../../config/labels.ts'
import type { Translation, WaypointGateway } from '../../config/translation.ts'
import { formatIdentity, parseIdentity, sameIdentity, type Identity } from '../../mesh/identity.ts'
import type { ClientNode } from '../../wire/contract.ts'
import { describeCaller, type Caller } from './authenticator.ts'

/** `namespace/serviceAccount` of agents, as the chart and the sandbox create it. */
export function agentAccount(systemNamespace = SYSTEM_NAMESPACE): string {
  return `${systemNamespace}/ambit-agent`
}

export function isAgent(caller: Caller, account = agentAccount()): boolean {
  return `${caller.namespace}/${caller.serviceAccount}` === account
}

/** The identity a certificate may be issued for. Throws CONTROL_DENIED naming the reason, CONTROL_BAD_REQUEST. */
export function authorizeIssue(
  caller: Caller,
  impersonate: string,
  translation: Translation,
  account = agentAccount(),
): Identity {
  const { trustDomain } = translation.settings
  if (isAgent(caller, account)) return authorizeAgent(caller, impersonate, translation)
  const own: Identity = { trustDomain, namespace: caller.namespace, serviceAccount: caller.serviceAccount }
  if (impersonate !== '' && !sameIdentity(parse(impersonate), own)) {
    throw denied(caller, impersonate, `only an agent (${account}) may ask for the identity of another`)
  }
  if (!waypointsOf(caller, translation).length) {
    throw denied(caller, formatIdentity(own), 'no waypoint Gateway runs as this service account')
  }
  return own
}

/** Whether this caller may have a configuration stream as what it says it is. Throws CONTROL_DENIED. */
export function authorizeStream(
  caller: Caller,
  node: ClientNode,
  translation: Translation,
  account = agentAccount(),
): void {
  if (node.type === 'agent') {
    if (!isAgent(caller, account)) {
      throw refused(`${describeCaller(caller)} may not have an agent's configuration: it is not ${account}`)
    }
    if (caller.node === '') throw refused(`the token of ${describeCaller(caller)} is not bound to a node`)
    if (caller.node !== node.node) {
      throw refused(`the token is for node ${caller.node}, and the agent says it runs on '${node.node}'`)
    }
    return
  }
  const gateway = node.gateway ?? ''
  if (!waypointsOf(caller, translation).some((one) => one.name === gateway && one.namespace === node.namespace)) {
    throw refused(`${describeCaller(caller)} is not the service account of waypoint ${node.namespace}/${gateway}`)
  }
}

function waypointsOf(caller: Caller, translation: Translation): WaypointGateway[] {
  return translation.waypoints.filter(
    (one) => one.namespace === caller.namespace && one.serviceAccount === caller.serviceAccount,
  )
}

function authorizeAgent(caller: Caller, impersonate: string, translation: Translation): Identity {
  if (impersonate === '') {
    throw new AmbitError('CONTROL_BAD_REQUEST', 'an agent must say for which identity it asks (ImpersonatedIdentity)')
  }
  if (caller.node === '') throw denied(caller, impersonate, 'the token is not bound to a node')
  const identity = parse(impersonate)
  const { trustDomain } = translation.settings
  if (identity.trustDomain !== trustDomain) {
    throw denied(caller, impersonate, `this mesh's trust domain is ${trustDomain}`)
  }
  // An agent never speaks for pods that hold their own certificate (waypoints) or that have no address of their own.
  const isOf = (one: { node: string; namespace: string; serviceAccount: string }): boolean =>
    one.node === caller.node && one.namespace === identity.namespace && one.serviceAccount === identity.serviceAccount
  const here =
    translation.workloads.some((one) => isOf(one) && !one.hostNetwork && !one.nativeTunnel) ||
    // Bound to the node, and not known by an address yet: a new pod may dial out before the API knows that it runs.
    translation.pods.some((one) => isOf(one) && one.enrolment === 'enrolled')
  if (!here) {
    const account = `${identity.namespace}/${identity.serviceAccount}`
    throw denied(caller, impersonate, `no pod of node ${caller.node} runs as service account ${account}`)
  }
  return identity
}

function parse(uri: string): Identity {
  try {
    return parseIdentity(uri)
  } catch (error) {
    throw new AmbitError('CONTROL_BAD_REQUEST', `'${uri.slice(0, 300)}' is not an identity`, { cause: error })
  }
}

function denied(caller: Caller, identity: string, why: string): AmbitError {
  return refused(`no certificate for ${identity} to ${describeCaller(caller)}: ${why}`)
}

function refused(message: string): AmbitError {
  return new AmbitError('CONTROL_DENIED', message)
}
