// PEM bundles as text. Must not live here: trust decisions (OpenSSL makes them).

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

/** Every certificate of a PEM text, each ending in a newline; other content is dropped. */
export function splitPem(text: string): string[] {
  return (text.match(CERTIFICATE) ?? []).map((certificate) => `${certificate}\n`)
}

/** One text with every certificate once, in order of first appearance. */
export function mergePem(...texts: readonly string[]): string {
  return [...new Set(texts.flatMap(splitPem))].join('')
}
