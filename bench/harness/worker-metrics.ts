/** A sum over workers of a metric's samples whose labels hold all of `labels`; the scrape resets what resets. */
export async function workerMetric(
  workers: readonly { port: number }[],
  name: string,
  ...labels: string[]
): Promise<number> {
  let sum = 0;
  for (const { port } of workers) {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`);
    for (const line of (await response.text()).split("\n")) {
      if (!line.startsWith(`${name}{`) || !labels.every((label) => line.includes(label))) continue;
      sum += Number(line.slice(line.lastIndexOf(" ") + 1));
    }
  }
  return sum;
}
