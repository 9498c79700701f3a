import { text } from "./fields.js";
import { luaPlaces } from "./lua-places.js";
import { luaText } from "./lua-text.js";

const keys = { any: text("The first key of the step, with a hash tag.") };
const firstWrite = luaText("lua/even-when-full", luaPlaces({ keys, fields: {}, each: {} })).lua;

/** Makes a Lua step run even with no memory left in Redis. The step needs a key with a hash tag. */
export const evenWhenFull = (lua: string): string => `${firstWrite}\n${lua}`;
