// What the data path asks of certificates. Types only; the implementation is manager.ts. Must not live here: x509, the
// wire to the CA (handed in as a function), who may have which identity (control/issue).
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { KeyPair } from '../io/connection.ts'
import type { Identity } from '../mesh/identity.ts'
import type { KeptCertificates } from './kept.ts'

/** Asks a CA: PEM chain, leaf first, the trust bundle last (`ControlConnection.sign` fits). */
export type SignCertificate = (request: {
  readonly csr: string
  readonly identity: Identity
  readonly validitySeconds: number
}) => Promise<readonly string[]>

/** realtime: a connection waits. warmup: a pod came. background: renewal. */
export type CertificatePriority = 'realtime' | 'warmup' | 'background'

export interface CertificateManagerOptions {
  readonly sign: SignCertificate
  readonly clock: Clock
  readonly log: Logger
  /** PEM roots of the file that control's own certificate is checked with. */
  readonly roots: string
  /** What the program before this one held: served at once, renewed when it is due. */
  readonly restored?: KeptCertificates
  /** [0, 1), for jitter; default Math.random. */
  readonly random?: () => number
  /** Default 86 400. */
  readonly validitySeconds?: number
  /** Requests at the CA at one time; default 8. */
  readonly concurrency?: number
  /** Bound on identities held; default 4 096. */
  readonly maxIdentities?: number
}

/** For /config_dump and metrics; never the key. */
export interface CertificateStatus {
  readonly identity: string
  readonly state: 'requested' | 'valid' | 'renewing' | 'expired'
  /** Milliseconds since the epoch; 0 while there is none. */
  readonly notBefore: number
  readonly notAfter: number
  readonly renewAt: number
  readonly serial: string
  /** Last failure, '' when the last request succeeded. */
  readonly error: string
}

export interface Certificates {
  /**
   * The identity's certificate: at once when it is held, which is what a handshake meets; else fetched, one request however
   * many wait. While a renewal fails the still valid one is served. Rejects (never throws) with CERTIFICATE_UNAVAILABLE naming
   * the identity and the CA's reason: the first attempt's failure is told to those who wait, the manager goes on trying.
   */
  keyPair(identity: Identity): KeyPair | Promise<KeyPair>
  /** Fetches ahead (a pod with this identity came to the node) and keeps it renewed until `forget`. */
  prefetch(identity: Identity): void
  /** The last pod with this identity left: the key is dropped, a renewal cancelled. */
  forget(identity: Identity): void
  /** PEM trust bundle: the roots of the file, of the mesh's settings, and those the CA sent last. Changes are told to `onTrust` listeners. */
  trust(): string
  onTrust(listener: (bundle: string) => void): void
  /** An identity has another certificate than before: what still runs on the old one may be led over. */
  onRenewed(listener: (identity: Identity) => void): void
  status(): readonly CertificateStatus[]
  close(): void
}
