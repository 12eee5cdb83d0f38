// What every kind of token check shares: its audience, its bound, its claims as they stand there. Must not live here: believing
// any of them.

/** What agents and waypoints have their projected tokens made out for, as Istio's do. */
export const TOKEN_AUDIENCE = 'istio-ca'
/** A projected token has about 1.2 kB. */
export const MAX_TOKEN_CHARACTERS = 16_384

export interface Claims {
  readonly iss: string
  readonly aud: readonly string[] | undefined
  /** Seconds since the epoch. */
  readonly exp: number | undefined
}

/** Reads a JWT's claims without checking anything; undefined when it is none. For messages, never for decisions. */
export function claimsOf(token: string): Claims | undefined {
  const [, body] = token.split('.')
  if (body === undefined) return undefined
  try {
    const { iss, aud, exp } = JSON.parse(Buffer.from(body, 'base64url').toString()) as Record<string, unknown>
    const names = Array.isArray(aud) ? aud : aud === undefined ? undefined : [aud]
    return {
      iss: typeof iss === 'string' ? iss : '',
      aud: names?.map(String),
      exp: typeof exp === 'number' ? exp : undefined,
    }
  } catch {
    return undefined
  }
}
