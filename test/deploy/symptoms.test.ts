import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readTables } from "../support/markdown-tables.js";
import { root } from "../support/run/tools.js";
import { flow } from "../support/stack/flows.js";
import { keys, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const page = readFileSync(join(root, "docs/symptoms.md"), "utf8");

/** A command that asks the API or the worker, and what is done with its answer. */
const commands = readTables(page)
  .tables.flatMap(({ rows }) => rows.map(([, , command = ""]) => command.replaceAll("\\|", "|")))
  .flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, command = ""]) => command))
  .filter((command) => /^(api|curl) /.test(command));

describe("the commands of docs/symptoms.md", () => {
  let stack: TestStack;
  let prediction: string;
  let batch: string;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], env: { RATE_LIMIT_PER_MINUTE: "100000" } });
    prediction = (await stack.predict(model, flow(1), {}, { as: "admin" })).body.id;
    const made = await stack.post(`/v1/models/${model}/batches`, { inputs: [flow(1), {}] }, { as: "admin" });
    batch = made.body.id;
    expect((await stack.get(`/v1/batches/${batch}?wait=20`, { as: "admin" })).body.status).toBe("partial");
  });
  afterAll(() => stack?.close());

  test("are there for most symptoms", () => {
    expect(commands.length).toBeGreaterThan(25);
  });

  test.each([...new Set(commands)])("%s shows something", async (command) => {
    const [ask = "", ...filters] = command.split(" | ");
    const asked = /^api "?(\/[^" ]+)|^curl (?:-s )?(\$URL|\$WORKER)(\/\S+)/.exec(ask);
    const worker = `http://127.0.0.1:${stack.workers[0]?.port}`;
    const path = (asked?.[1] ?? asked?.[3] ?? "")
      .replace("$MODEL", model)
      .replace("$ID", ask.includes("/batches/") ? batch : prediction);
    const response = await fetch(`${asked?.[2] === "$WORKER" ? worker : stack.url}${path}`, {
      method: ask.includes("-X POST") ? "POST" : "GET",
      headers: ask.startsWith("api") ? { authorization: `Bearer ${keys.admin}` } : {},
    });
    expect(response.status).toBe(200);
    const text = await response.text();
    const shown = ask.includes(" -i") ? `${JSON.stringify([...response.headers])}\n${text}` : text;
    for (const filter of filters) {
      const [, field = ""] = /^jq \.(\w+)$/.exec(filter) ?? [];
      const [, pattern = ""] = /^grep (?:-\S+ )?'?([^']+)'?$/.exec(filter) ?? [];
      if (filter.startsWith("jq")) expect(JSON.parse(text)).toHaveProperty(field);
      else expect(shown).toMatch(new RegExp(pattern, filter.includes("-i ") ? "i" : ""));
    }
  });
});
