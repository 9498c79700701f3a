import { readFileSync } from "node:fs";
import { addDelayedJob } from "bullmq/dist/cjs/scripts/addDelayedJob-6.js";
import { addStandardJob } from "bullmq/dist/cjs/scripts/addStandardJob-9.js";
import { luaConstants } from "./lua-constants.js";
import type { LuaNames } from "./lua-places.js";

/** BullMQ's own scripts, embedded in steps without changes, by the names for `-- include` in Lua files. */
export const bullmqTexts: Readonly<Record<string, string>> = {
  "bullmq/add-delayed-job": addDelayedJob.content,
  "bullmq/add-standard-job": addStandardJob.content,
};

/** The source folder of the Lua files, which are not copied into the compiled output. */
const scriptsFolder = new URL("../../../scripts/", import.meta.url);

const includeLine = /^[ \t]*-- include (\S+)[ \t]*$/gm;
const nameInLua = /\b([A-Z]+)\.([A-Za-z]\w*)/g;

export interface LuaText {
  lua: string;
  /** The names of the step's table that occur in it, such as `ARG.nowMs`. */
  used: ReadonlySet<string>;
}

/**
 * The text of a Lua file for Redis. Each line `-- include <file>` is replaced by that file, once, and each name of
 * `names` or of `luaConstants` by its expression. `file` is a path below `folder` without its ending. Throws for a
 * missing file, and for an undefined name of a known group.
 */
export function luaText(file: string, names: LuaNames, folder: URL = scriptsFolder): LuaText {
  const used = new Set<string>();
  const included = new Set([file]);
  const all: LuaNames = { ...luaConstants, ...names };

  const read = (name: string, from: URL): string => {
    const text = readFileSync(new URL(`${name}.lua`, from), "utf8").trimEnd();
    const named = text.replaceAll(nameInLua, (whole, group: string, member: string) => {
      const members = all[group];
      if (members === undefined) return whole;
      if (!Object.hasOwn(members, member)) throw new Error(`${name}.lua: ${whole} is in no table`);
      if (names[group] !== undefined) used.add(whole);
      return members[member] as string;
    });
    return named.replaceAll(includeLine, (_line, part: string) => include(part));
  };
  const include = (name: string): string => {
    if (included.has(name)) return "";
    included.add(name);
    return bullmqTexts[name] ?? read(name, scriptsFolder);
  };
  return { lua: read(file, folder), used };
}
