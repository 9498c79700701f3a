import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { bullKeys, fairKeys, keyNames } from "@millrace/shared/redis/key-names.js";
import { defineScript } from "@millrace/shared/scripts/lua/define-script.js";
import { number, optional, text } from "@millrace/shared/scripts/lua/fields.js";
import { luaConstants } from "@millrace/shared/scripts/lua/lua-constants.js";
import { luaPlaces } from "@millrace/shared/scripts/lua/lua-places.js";
import { luaText } from "@millrace/shared/scripts/lua/lua-text.js";
import { describe, expect, test } from "vitest";
import { lintLua } from "../support/lint-lua.js";

const root = new URL("../../", import.meta.url).pathname;
const sources = ["shared", "api", "workers", "cli"].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .map((path) => `${folder}/${path}`)
    .filter((path) => /\.(lua|ts)$/.test(path) && !/(^|\/)(node_modules|dist)\//.test(path)),
);
const read = (path: string) => readFileSync(join(root, path), "utf8");
const luaFiles = sources.filter((path) => path.endsWith(".lua"));
const includesOf = (path: string) => [...read(path).matchAll(/^-- include (\S+)$/gm)].map(([, name]) => name as string);
const pathOf = (name: string) => `shared/scripts/${name}.lua`;
const isBullmqs = (name: string) => name.startsWith("bullmq/");

/** Files included by a file, directly or indirectly. */
function allIncludes(path: string): Set<string> {
  const found = new Set<string>();
  const add = (from: string) => {
    for (const name of includesOf(from)) {
      if (isBullmqs(name) || found.has(pathOf(name))) continue;
      found.add(pathOf(name));
      add(pathOf(name));
    }
  };
  add(path);
  return found;
}
const included = new Set(luaFiles.flatMap((path) => [...allIncludes(path)]));

const ofRedis = ["redis", "cjson", "cmsgpack", "struct", "KEYS", "ARGV"];
const ofLua = ["ipairs", "pairs", "math", "next", "string", "table", "tonumber", "tostring", "unpack"];
const ofTables = ["KEY", "ITEMKEY", "ARG", "ITEM", "ITEMS", ...Object.keys(luaConstants)];

/** Texts that join a prefix of keys with a name as text, or anything with one of BullMQ's names. */
function speltKeys(typescript: string): string[] {
  const afterPrefix = /\$\{[\w.#]*(prefix|queue|base)\}[^$`]+|\b(prefix|queue|base) \+ ["'`]/gi;
  const bullmqs = new RegExp(`\\}(${Object.values(bullKeys).join("|")})\``, "g");
  return [...(typescript.match(afterPrefix) ?? []), ...(typescript.match(bullmqs) ?? [])];
}

describe("Lua files", () => {
  test.each(luaFiles)("%s is Lua that declares its names and reads its locals", (path) => {
    const { undeclared, unused } = lintLua(read(path));
    const fromOthers = [...allIncludes(path)].flatMap((other) => [...lintLua(read(other)).offered]);
    // An included file may use names of files included before it.
    const before = included.has(path) ? luaFiles.filter((one) => allIncludes(one).has(path)) : [];
    for (const one of before) fromOthers.push(...[...allIncludes(one)].flatMap((o) => [...lintLua(read(o)).offered]));
    const known = new Set([...ofRedis, ...ofLua, ...ofTables, ...fromOthers]);
    expect([...undeclared].filter((name) => !known.has(name))).toEqual([]);
    const offered = included.has(path) ? lintLua(read(path)).offered : new Set();
    expect([...unused].filter((name) => !offered.has(name))).toEqual([]);
  });

  test.each(luaFiles)("%s contains no key name as text", (path) => {
    const names = new Set<string>([keyNames, bullKeys, fairKeys].flatMap((table) => Object.values(table)));
    const spelt = [...lintLua(read(path)).joinedTexts].filter((one) => names.has(one) || one.startsWith("/"));
    expect(spelt).toEqual([]);
    expect([...lintLua(read(path)).joinedToKeys]).toEqual([]);
  });

  test("no TypeScript file but those of the key names spells a key after its prefix", () => {
    const typescript = sources.filter(
      (path) => path.endsWith(".ts") && !/^shared\/redis\/key(s|-names)\.ts$/.test(path),
    );
    expect(typescript.length).toBeGreaterThan(200);
    expect(typescript.flatMap((path) => speltKeys(read(path)).map((spelt) => `${path}: ${spelt}`))).toEqual([]);
  });

  test.each(luaFiles)("%s parses no JSON by patterns, and reads no bytes at fixed positions", (path) => {
    const lua = read(path);
    expect(lua.match(/string\.(g?match|find|gsub)\(.*[{"]/g) ?? []).toEqual([]);
    expect(lua.match(/string\.byte|struct\.\w+\('/g) ?? []).toEqual([]);
  });

  test.each(luaFiles)("%s contains no duration and no name of an event as a literal", (path) => {
    const code = read(path).replaceAll(/--.*$/gm, "");
    // The calendar has numbers of its own, and 1000 also converts units.
    const numbers = path.endsWith("/end-batch.lua") ? [] : (code.match(/\b(?!1000\b)(0x\w+|\d{4,})\b/g) ?? []);
    expect([...numbers, ...(code.match(/'(prediction|batch)\.\w+'/g) ?? [])]).toEqual([]);
  });

  test("no Lua or TypeScript file uses positions of keys or arguments", () => {
    const counting = sources.filter((path) => /\b(ARGV|KEYS)\s*\[/.test(read(path)));
    expect(counting).toEqual([]);
    expect(sources.length).toBeGreaterThan(200);
  });

  test("each is a step or included in one; each of their functions and constants is used", () => {
    const typescript = sources
      .filter((path) => path.endsWith(".ts"))
      .map(read)
      .join("\n");
    const steps = luaFiles.filter((path) => {
      const name = path.replace(/^shared\/scripts\/|^.*\/access\//, "").replace(/\.lua$/, "");
      return typescript.includes(`file: "${name}"`) || typescript.includes(`luaText(\n  "${name}"`);
    });
    const named = new Set([...steps, ...included, pathOf("lua/even-when-full")]);
    expect(luaFiles.filter((path) => !named.has(path))).toEqual([]);
    const lua = luaFiles.map(read).join("\n");
    const offered = [...included].flatMap((path) => [...lintLua(read(path)).offered]);
    expect(offered.filter((name) => lua.split(new RegExp(`\\b${name}\\b`)).length < 3)).toEqual([]);
    const constants = Object.entries(luaConstants).flatMap(([group, names]) =>
      Object.keys(names).map((name) => `${group}.${name}`),
    );
    expect(constants.filter((name) => !new RegExp(`\\b${name.replace(".", "\\.")}\\b`).test(lua))).toEqual([]);
  });

  test.each([
    ["Dockerfile.api", /^(shared|api)\//],
    ["Dockerfile.worker", /^(shared|workers)\//],
  ])("%s copies all Lua files of its service", (dockerfile, theirs) => {
    const folders = read(dockerfile)
      .match(/find (.+) -name '\*\.lua' -exec cp --parents \{\} \/app\//)?.[1]
      ?.split(" ");
    const needed = luaFiles.filter((path) => theirs.test(path));
    expect(needed.length).toBeGreaterThan(0);
    expect(needed.filter((path) => !folders?.some((folder) => path.startsWith(`${folder}/`)))).toEqual([]);
  });

  test(".luacheckrc knows the names from tables and from included files", () => {
    expect([...lintLua(read(".luacheckrc")).undeclared]).toContain("read_globals");
    const names = new Set([...read(".luacheckrc").matchAll(/"(\w+)"/g)].map(([, name]) => name));
    const functions = [...included].flatMap((path) =>
      [...read(path).matchAll(/^local function (\w+)/gm)].map(([, name]) => name as string),
    );
    const used = functions.filter((name) => luaFiles.some((path) => lintLua(read(path)).undeclared.has(name)));
    expect([...ofRedis, ...ofTables, ...used].filter((name) => !names.has(name))).toEqual([]);
    const others = [...read(".luacheckrc").matchAll(/^files\["(.+)"\]/gm)].map(([, path]) => path);
    expect(others).toEqual([...included].sort());
  });
});

describe("the check of Lua files", () => {
  test("finds undeclared names, also if they are assigned to or declared later", () => {
    const lua = "local a = b\nc = a\nlocal function f(x) return x + y end\nlocal y = f(1)\nreturn z.field, y";
    expect([...lintLua(lua).undeclared].sort()).toEqual(["b", "c", "y", "z"]);
  });

  test("finds unread locals in any block, except placeholders", () => {
    const lua =
      "local a, used = 1, 2\nlocal function f() local b = used end\nif used then local c = 1 end\n" +
      "for i = 1, 2 do local d = 1 end\nfor _, e in ipairs({}) do end\nlocal n = 1\nwhile used do local g end";
    expect([...lintLua(lua).unused].sort()).toEqual(["a", "b", "c", "d", "e", "f", "g"]);
  });

  test("finds concatenated strings, and refuses invalid Lua", () => {
    expect([...lintLua("return base .. '/result:' .. id .. \":lock\", 'other'").joinedTexts]).toEqual([
      "/result:",
      ":lock",
    ]);
    expect([...lintLua("return KEY.a .. '~', KEY.b .. ':' .. id, KEY.c .. id .. 'x'").joinedToKeys]).toEqual([
      "~",
      ":",
    ]);
    expect(() => lintLua("if x then")).toThrow("expected");
  });

  test("finds key names in TypeScript, but not where they come from a table", () => {
    const source = (marked: string) => `\`${marked.replaceAll("@", "$")}\``;
    const spelt = [
      "@{queue}wait",
      "@{keys.base}/probe",
      "@{this.#queue}marker",
      "@{deps.keyPrefix}:{ready}",
      "@{id}:lock",
    ];
    expect(spelt.filter((one) => speltKeys(source(one)).length === 0)).toEqual([]);
    const tabled = ["@{queue}@{bullKeys.wait}", "@{keys.queue}@{id}", "@{request.baseUrl}/x"];
    expect(tabled.flatMap((one) => speltKeys(source(one)))).toEqual([]);
  });
});

describe("the loader", () => {
  const load = (lua: string, table: Partial<Parameters<typeof luaPlaces>[0]> = {}): string => {
    const folder = mkdtempSync(join(tmpdir(), "lua-"));
    try {
      writeFileSync(join(folder, "step.lua"), lua);
      const names = luaPlaces({ keys: {}, fields: {}, each: {}, ...table });
      return luaText("step", names, pathToFileURL(`${folder}/`)).lua;
    } finally {
      rmSync(folder, { recursive: true });
    }
  };

  test("replaces names by positions, and includes each file once", () => {
    const table = {
      keys: { batch: text("a"), lines: text("b") },
      eachKey: "proof",
      fields: { owner: text("c"), nowMs: number("d") },
      each: { id: text("e"), token: text("f") },
    };
    const lua = load(
      "f(KEY.lines, ARG.nowMs)\nfor i = ITEMS.first, #ARGV, ITEMS.size do g(ITEM.id, ITEM.token, ITEMKEY.proof) end",
      table,
    );
    expect(lua).toBe(
      `f(${["KEYS", "ARGV"].map((list) => `${list}[2]`).join(", ")})\n` +
        `for i = 3, #ARGV, 2 do g(${["ARGV[i", "ARGV[i + 1", "KEYS[n + 2"].join("], ")}]) end`,
    );
    const twice = load("-- include queue/fair-queue\n-- include queue/take-jobs\n-- include queue/fair-queue");
    expect(twice.match(/local function fairOpen/g)).toHaveLength(1);
  });

  test.each(["KEY.other", "ARG.other", "ITEM.other", "KEYNAME.other", "BULL.other", "ITEMS.first"])(
    "refuses %s, which is in no table",
    (name) => {
      expect(() => load(`return ${name}`)).toThrow(`step.lua: ${name} is in no table`);
    },
  );

  test("refuses a missing file", () => {
    expect(() => load("-- include queue/nothing")).toThrow("nothing.lua");
  });

  test("refuses a table with an unread name, and an optional key before required ones", () => {
    const lease = text("The lease.");
    const fields = { holder: text("Asks."), ttlMs: number("Lasts.") };
    const table = { name: "test", file: "lease", keys: { lease }, fields };
    expect(defineScript(table).name).toBe("test");
    expect(() => defineScript({ ...table, fields: { ...fields, more: text("Unknown.") } })).toThrow("ARG.more");
    expect(() => defineScript({ ...table, keys: { lease, more: text("Unknown.") } })).toThrow("KEY.more");
    expect(() => defineScript({ ...table, each: { more: text("Unknown.") } })).toThrow("ITEM.more");
    const keys = { versions: optional(lease), beats: lease };
    const retire = { version: text("a"), worker: text("b"), nowMs: number("c") };
    expect(() => defineScript({ name: "test", file: "models/retire", keys, fields: retire })).toThrow("versions");
  });
});
