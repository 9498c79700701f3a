/** All of a service's `/metrics`. */
export const scrapeAll = async (base: string): Promise<string> => (await fetch(`${base}/metrics`)).text();

/** The sum of a metric's samples whose labels hold all of `labels`, from a service's `/metrics`. */
export async function scrape(base: string, metric: string, labels: Record<string, string> = {}): Promise<number> {
  const text = await scrapeAll(base);
  let sum = 0;
  for (const line of text.split("\n")) {
    const [, name, inside = "", value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name !== metric) continue;
    if (Object.entries(labels).every(([label, wanted]) => inside.includes(`${label}="${wanted}"`)))
      sum += Number(value);
  }
  return sum;
}
