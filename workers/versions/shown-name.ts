import { createHash } from "node:crypto";

const longest = 64;

/**
 * A file's name as it is shown in logs, answers and on terminals: control characters, invisible ones and backslashes
 * are escaped, and a long name is cut and told apart by a digest. A model's name is shown as it is.
 */
export function shownName(name: string): string {
  const escaped = name.replaceAll(
    /[\\\p{C}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`,
  );
  const characters = [...escaped];
  if (characters.length <= longest) return escaped;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 8);
  return `${characters.slice(0, longest).join("")}…${digest}`;
}
