const lineBreaks = /[\u0085\u2028\u2029]/;
const eachBreak = /[\u0085\u2028\u2029]/g;

/**
 * The same JSON without the characters at which some readers end a line, although JSON has them within strings: U+0085,
 * U+2028 and U+2029 are escaped. For JSON that is one line of many, and for server-sent events.
 */
export const oneLine = (json: string): string =>
  lineBreaks.test(json)
    ? json.replace(eachBreak, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
    : json;
