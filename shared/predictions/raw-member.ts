import { ascii } from "./ascii.js";

const { quote, comma, colon, openBracket, backslash, closeBracket, openBrace, closeBrace } = ascii;

/** The original text of a member of a JSON object; undefined where there is none. The JSON must be valid. */
export function rawMember(json: Buffer, name: string): string | undefined {
  let depth = 0;
  let key = "";
  let from = -1;
  for (let at = 0; at < json.length; at++) {
    const c = json[at] as number;
    if (c === quote) {
      const end = endOfString(json, at + 1);
      if (depth === 1 && from < 0) key = json.toString("utf8", at, end + 1);
      at = end;
    } else if (c === comma || c === closeBrace) {
      if (depth === 1 && from >= 0) return json.toString("utf8", from, at);
      if (c === closeBrace) depth -= 1;
    } else if (c === colon) {
      if (depth === 1 && JSON.parse(key) === name) from = at + 1;
    } else if (c === openBracket || c === openBrace) depth += 1;
    else if (c === closeBracket) depth -= 1;
  }
  return undefined;
}

/** JSON without the space between its tokens, which stay unchanged. */
export function compactJson(json: string): string {
  let text = "";
  for (let at = 0; at < json.length; ) {
    const start = json.indexOf('"', at);
    text += json.slice(at, start < 0 ? json.length : start).replaceAll(/[ \t\r\n]+/g, "");
    if (start < 0) break;
    let end = json.indexOf('"', start + 1);
    while (end > 0 && isEscaped(json, end)) end = json.indexOf('"', end + 1);
    at = end < 0 ? json.length : end + 1;
    text += json.slice(start, at);
  }
  return text;
}

function isEscaped(json: string, at: number): boolean {
  let slashes = 0;
  while (json[at - 1 - slashes] === "\\") slashes += 1;
  return slashes % 2 === 1;
}

function endOfString(json: Buffer, from: number): number {
  for (let at = from; ; at++) {
    if (json[at] === quote || at >= json.length) return at;
    if (json[at] === backslash) at += 1;
  }
}
