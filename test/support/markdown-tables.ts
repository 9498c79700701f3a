/** A table of a page; `line` is that of its head, from 1. */
export interface MarkdownTable {
  line: number;
  head: string[];
  rows: string[][];
}

/**
 * The tables of a page as GitHub draws them, and why some are drawn otherwise than they were meant: a row with other
 * cells than its head, a row that goes on in the next line, a row without a table.
 */
export function readTables(page: string): { tables: MarkdownTable[]; faults: string[] } {
  const tables: MarkdownTable[] = [];
  const faults: string[] = [];
  const lines = page.replaceAll(/^```[\s\S]*?^```/gm, (code) => code.replaceAll(/[^\n]/g, "")).split("\n");
  let table: MarkdownTable | null = null;
  for (const [i, line] of lines.entries()) {
    const at = `line ${i + 1}`;
    if (!line.startsWith("|")) {
      if (table !== null && line.trim() !== "") faults.push(`${at}: the row above goes on, or a blank line is missing`);
      table = null;
    } else if (table !== null) {
      const cells = cellsOf(line);
      if (cells.length !== table.head.length) {
        faults.push(`${at}: ${cells.length} cells, the head has ${table.head.length}`);
      }
      if (i > table.line) table.rows.push(cells);
      else if (!cells.every((cell) => /^:?-+:?$/.test(cell))) faults.push(`${at}: no line of dashes below the head`);
    } else {
      if (i > 0 && lines[i - 1]?.trim() !== "") faults.push(`${at}: no blank line before the table`);
      table = { line: i + 1, head: cellsOf(line), rows: [] };
      tables.push(table);
    }
  }
  for (const { line, rows } of tables) if (rows.length === 0) faults.push(`line ${line}: a table without rows`);
  return { tables, faults };
}

/** The cells of a row. A bar ends a cell in code too, unless a backslash is before it. */
const cellsOf = (line: string): string[] =>
  line
    .trim()
    .replace(/^\||(?<!\\)\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim());

/** A row of the table of metrics; `name` and `labels` are of its first cell. */
export interface MetricRow {
  name: string;
  labels: string[];
  from: string;
  unit: string;
  tells: string;
  use: string;
}

/** The rows of the table of metrics of docs/operations.md. */
export function metricRows(page: string): MetricRow[] {
  const table = readTables(page).tables.find(({ head }) => head[0] === "Metric");
  return (table?.rows ?? []).map(([metric = "", from = "", unit = "", tells = "", use = ""]) => {
    const [, name = metric, labels = ""] = /^`(\w+)(?:\{([\w,]+)\})?`$/.exec(metric) ?? [];
    return { name, labels: labels.split(",").filter(Boolean), from, unit, tells, use };
  });
}
