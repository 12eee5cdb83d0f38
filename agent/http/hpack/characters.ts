// Which bytes may stand in a field name and value of HTTP/2 (RFC 9113 §8.2.1, RFC 9110 §5.6.2), as tables.

/** 1 for token characters without upper-case letters. */
export const NAME_CHARACTER = new Uint8Array(256)
for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") NAME_CHARACTER[c.charCodeAt(0)] = 1

/** 1 for visible characters, blanks and obs-text; 0 for controls, DEL, NUL, CR, LF. */
export const VALUE_CHARACTER = new Uint8Array(256)
for (let c = 0; c < 256; c++) if ((c >= 0x20 && c !== 0x7f) || c === 9) VALUE_CHARACTER[c] = 1
