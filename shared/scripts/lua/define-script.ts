import { evenWhenFull } from "./even-when-full.js";
import type { Fields } from "./fields.js";
import { luaPlaces, namesToRead } from "./lua-places.js";
import { luaText } from "./lua-text.js";
import { type NoFields, type Script, type ScriptTable, scriptOf } from "./script.js";

/** Defines a step by its table. Throws where the names of the table and of the Lua file differ. */
export function defineScript<K extends Fields, F extends Fields = NoFields, I extends Fields = NoFields, A = unknown>(
  table: ScriptTable<K, F, I, A>,
): Script<K, F, I, A> {
  const { each = {}, eachKey, fields = {}, file, keys, name, whenFull } = table;
  const placed = { keys, fields, each, ...(eachKey !== undefined && { eachKey }) };
  const { lua: text, used } = luaText(file, luaPlaces(placed));
  const idle = namesToRead(placed).filter((one) => !used.has(one));
  if (idle.length > 0) throw new Error(`${file}.lua does not read ${idle.join(", ")}`);
  const early = Object.keys(keys)
    .slice(0, -1)
    .find((one) => keys[one]?.optional);
  if (early !== undefined) throw new Error(`${name}: only the last key can be optional, not ${early}`);

  return scriptOf(table, whenFull ? evenWhenFull(text) : text);
}
