import { mkdir, writeFile } from "node:fs/promises";
import type { Machine } from "./machine.js";
import { inRoot } from "./paths.js";
import type { Figure } from "./scenario.js";

/** A table of figures as text. */
export function tableOf(figures: readonly Figure[]): string {
  const rows = figures.map(({ goal, met, name, unit, value }) => [
    name,
    String(value),
    unit,
    goal ?? "",
    met === null ? "" : met ? "met" : "MISSED",
  ]);
  const all = [["figure", "value", "unit", "goal", ""], ...rows];
  const widths = [0, 1, 2, 3, 4].map((i) => Math.max(...all.map((row) => (row[i] as string).length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 1 ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join("  ")
      .trimEnd();
  return [line(all[0] as string[]), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

/** Writes bench/results/<scenario>.json. */
export async function writeResult(
  scenario: string,
  commit: string,
  machine: Machine,
  figures: readonly Figure[],
): Promise<void> {
  await mkdir(inRoot("bench/results"), { recursive: true });
  const text = `${JSON.stringify({ commit, machine, figures }, null, 2)}\n`;
  await writeFile(inRoot(`bench/results/${scenario}.json`), text);
}
