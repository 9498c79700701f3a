import type { Fields } from "./fields.js";

/** The parts of a step's table that determine the places of its keys and arguments. */
export interface Placed {
  keys: Fields;
  /** Name of the key of each item; the keys of items follow `keys`. */
  eachKey?: string;
  fields: Fields;
  each: Fields;
}

/** Lua expressions by name, within groups: `{ ARG: { nowMs: … } }`. */
export type LuaNames = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** One element of a list in Lua, by an expression that counts from 1. */
export const place = (list: "KEYS" | "ARGV", at: number | string): string => `${list}[${at}]`;

/**
 * The names of a step's keys and arguments in Lua: `KEY` and `ARG`; `ITEM` for the item at index `i`; `ITEMKEY` for the
 * key of item number `n`; `ITEMS.first` and `ITEMS.size` for loops over items.
 */
export function luaPlaces({ each, eachKey, fields, keys }: Placed): LuaNames {
  const [keyNames, fieldNames, itemNames] = [Object.keys(keys), Object.keys(fields), Object.keys(each)];
  const first = fieldNames.length + 1;
  const named = (names: readonly string[], lua: (at: number) => string) =>
    Object.fromEntries(names.map((name, at) => [name, lua(at)]));
  return {
    KEY: named(keyNames, (at) => place("KEYS", at + 1)),
    ITEMKEY: eachKey === undefined ? {} : { [eachKey]: place("KEYS", itemKeyAt(keyNames.length)) },
    ARG: named(fieldNames, (at) => place("ARGV", at + 1)),
    ITEM: named(itemNames, (at) => place("ARGV", at === 0 ? "i" : `i + ${at}`)),
    ITEMS: itemNames.length === 0 ? {} : { first: String(first), size: String(itemNames.length) },
  };
}

const itemKeyAt = (keyCount: number): string => (keyCount === 0 ? "n" : `n + ${keyCount}`);

/** The names that the Lua file must read, so that the table declares nothing unused. */
export function namesToRead({ each, fields, keys }: Placed): string[] {
  const groups: [string, Fields][] = [
    ["KEY", keys],
    ["ARG", fields],
    ["ITEM", each],
  ];
  return groups.flatMap(([group, table]) =>
    Object.entries(table).flatMap(([name, { unnamed }]) => (unnamed ? [] : [`${group}.${name}`])),
  );
}
