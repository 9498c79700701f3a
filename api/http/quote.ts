const longest = 64;

/**
 * A caller's text in quotes, for a message: cut after 64 characters, and without characters that a terminal or a page
 * would act on instead of showing them.
 */
export function quote(text: string): string {
  const shown = text.slice(0, 2 * longest + 2).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "\ufffd");
  const characters = [...shown];
  return characters.length <= longest ? `"${shown}"` : `"${characters.slice(0, longest).join("")}…"`;
}
