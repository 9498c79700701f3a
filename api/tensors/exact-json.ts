/**
 * What `JSON.parse` would change or refuse: integers of 16 digits and more, and the floats that JSON has no number for.
 */
const suspicious = /[[,:\s]-?\d{16,}[\s,\]}]|NaN|Infinity/;
const tokens = /-?\d[\d.eE+-]*|-?Infinity|NaN/g;
const notFinite = /^(?:-?Infinity|NaN)$/;
const integer = /^-?\d+$/;

/** Whether a token would not be, as a number, what it says. */
const isInexact = (token: string): boolean =>
  notFinite.test(token) || (integer.test(token) && !Number.isSafeInteger(Number(token)));

/**
 * Parses JSON so that no integer loses a digit: those beyond 2^53 become decimal strings, and NaN, Infinity and
 * -Infinity, which clients write although JSON has none of them, their names. Throws a SyntaxError as `JSON.parse`
 * does.
 */
export function parseExactJson(text: string): unknown {
  return JSON.parse(suspicious.test(text) ? quoteNumbers(text) : text);
}

function quoteNumbers(text: string): string {
  let quoted = "";
  for (let at = 0; at < text.length; ) {
    const string = text.indexOf('"', at);
    const end = string < 0 ? text.length : string;
    quoted += text.slice(at, end).replace(tokens, (token) => (isInexact(token) ? `"${token}"` : token));
    if (string < 0) break;
    at = endOfString(text, string);
    quoted += text.slice(string, at);
  }
  return quoted;
}

/** Where the text goes on after the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return quote + 1;
  }
  return text.length;
}
