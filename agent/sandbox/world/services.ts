// Service addresses for whoever is not in the mesh: nftables rules of a node, as kube-proxy's nftables mode makes them
// (a random ready endpoint per connection, a refusal where there is none). Pure text. Must not live here: which
// endpoints a service has (cluster/endpoints.ts).
import type { Layout } from '../layout.ts'

export interface VirtualPort {
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
  /** `address:port` pairs; only those of the address's own family are used. */
  readonly endpoints: readonly { readonly address: string; readonly port: number }[]
}

export interface VirtualService {
  /** `namespace/name`, for comments. */
  readonly key: string
  /** Virtual addresses of either family. */
  readonly addresses: readonly string[]
  readonly ports: readonly VirtualPort[]
}

function isSix(address: string): boolean {
  return address.includes(':')
}

/** The whole table, replaced in one transaction. */
export function serviceRules(layout: Layout, services: readonly VirtualService[]): string {
  const maps: Record<'four' | 'six', string[]> = { four: [], six: [] }
  const hairpins: Record<'four' | 'six', Set<string>> = { four: new Set(), six: new Set() }
  const chains: string[] = []
  let number = 0
  for (const service of services)
    for (const address of service.addresses) {
      const six = isSix(address)
      const family = six ? 'six' : 'four'
      for (const port of service.ports) {
        const endpoints = port.endpoints.filter((endpoint) => isSix(endpoint.address) === six)
        if (endpoints.length === 0) continue
        const chain = `s${number++}`
        const hops = endpoints.map((endpoint, index) => {
          hairpins[family].add(`${endpoint.address} . ${endpoint.address}`)
          const target = six
            ? `ip6 to [${endpoint.address}]:${endpoint.port}`
            : `ip to ${endpoint.address}:${endpoint.port}`
          chains.push(`  chain ${chain}e${index} { meta l4proto ${port.protocol} dnat ${target}; }`)
          return `${index} : goto ${chain}e${index}`
        })
        chains.push(
          `  # ${service.key}\n  chain ${chain} { numgen random mod ${endpoints.length} vmap { ${hops.join(', ')} }; }`,
        )
        maps[family].push(`${address} . ${port.protocol} . ${port.port} : goto ${chain}`)
      }
    }
  const elements = (list: readonly string[]): string => (list.length > 0 ? `elements = { ${list.join(', ')} };` : '')
  const choose = `ip daddr . meta l4proto . th dport vmap @four; ip6 daddr . meta l4proto . th dport vmap @six;`
  const refuse =
    `ip daddr ${layout.serviceCidr4} meta l4proto tcp reject with tcp reset; ip daddr ${layout.serviceCidr4} reject; ` +
    `ip6 daddr ${layout.serviceCidr6} meta l4proto tcp reject with tcp reset; ip6 daddr ${layout.serviceCidr6} reject;`
  return `table inet ambit_services
delete table inet ambit_services
table inet ambit_services {
${chains.join('\n')}
  map four { type ipv4_addr . inet_proto . inet_service : verdict; ${elements(maps.four)} }
  map six { type ipv6_addr . inet_proto . inet_service : verdict; ${elements(maps.six)} }
  set hairpin4 { type ipv4_addr . ipv4_addr; ${elements([...hairpins.four])} }
  set hairpin6 { type ipv6_addr . ipv6_addr; ${elements([...hairpins.six])} }
  chain pods { type nat hook prerouting priority dstnat; ${choose} }
  chain node { type nat hook output priority -100; ${choose} }
  chain back { type nat hook postrouting priority srcnat; ip saddr . ip daddr @hairpin4 masquerade; ip6 saddr . ip6 daddr @hairpin6 masquerade; }
  chain refuse { type filter hook prerouting priority 0; ${refuse} }
  chain refuse_node { type filter hook output priority 0; ${refuse} }
}
`
}
