/** Whether a name fits one of the globs, in which `*` stands for any characters. */
export function fitsGlob(name: string, globs: readonly string[]): boolean {
  return globs.some((glob) => {
    const parts = glob.split("*");
    const first = parts[0] as string;
    if (parts.length === 1) return name === glob;
    const last = parts.at(-1) as string;
    if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) return false;
    let at = first.length;
    for (const part of parts.slice(1, -1)) {
      const found = name.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return at <= name.length - last.length;
  });
}
