import { text } from "./fields.js";
import { luaPlaces } from "./lua-places.js";
import { luaText } from "./lua-text.js";

const keys = { any: text("The first key of the step, which has a hash tag.") };
const firstWrite = luaText("lua/even-when-full", luaPlaces({ keys, fields: {}, each: {} })).lua;

/** Lua that is done whole although Redis has no memory left. It needs a key with a hash tag. */
export const evenWhenFull = (lua: string): string => `${firstWrite}\n${lua}`;
