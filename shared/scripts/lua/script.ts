import type { RedisClient } from "../../redis/connect-redis.js";
import { type Answer, type Argument, type Fields, pushValues, type ValuesOf } from "./fields.js";

/** The keys and arguments of a step by name. Their order is defined here alone, for both TypeScript and Lua. */
export interface ScriptTable<K extends Fields, F extends Fields, I extends Fields, A> {
  /** Name of the command at the client; unique. */
  name: string;
  /** Path of the Lua file below `shared/scripts`, without its ending. */
  file: string;
  keys: K;
  fields?: F;
  /** The arguments of one item; a step takes any number of items. */
  each?: I;
  /** Name of the key of each item. */
  eachKey?: string;
  /** The answer, for steps whose answer is read. */
  answer?: Answer<A>;
  /** Whether the step runs even with no memory left in Redis: for steps that end work and thereby free memory. */
  whenFull?: true;
}

/** The input of a run of a step. */
export type ScriptInput<K extends Fields, F extends Fields, I extends Fields> = {
  keys: ValuesOf<K>;
  eachKey?: readonly string[];
} & (keyof F extends never ? { fields?: never } : { fields: ValuesOf<F> }) &
  (keyof I extends never ? { each?: never } : { each: readonly ValuesOf<I>[] });

/** A Lua step, which Redis runs atomically. */
export interface Script<K extends Fields, F extends Fields, I extends Fields, A> {
  readonly name: string;
  readonly lua: string;
  /** Runs the step on keys of one hash slot; resolves to its answer. The text is sent once a connection. */
  run(redis: RedisClient, input: ScriptInput<K, F, I>): Promise<A>;
}

type Command = (keyCount: number, ...keysAndArguments: Argument[]) => Promise<unknown>;

export type NoFields = Record<never, never>;

/** A step of a table and its whole text; see `defineScript`. */
export function scriptOf<K extends Fields, F extends Fields = NoFields, I extends Fields = NoFields, A = unknown>(
  table: ScriptTable<K, F, I, A>,
  lua: string,
): Script<K, F, I, A> {
  const { each = {}, fields = {}, keys, name } = table;
  const [keyNames, fieldNames, itemNames] = [Object.keys(keys), Object.keys(fields), Object.keys(each)];
  return {
    name,
    lua,
    run(redis, input) {
      const commands = redis as unknown as Record<string, Command | undefined>;
      if (commands[name] === undefined) redis.defineCommand(name, { lua });
      const given: Record<string, unknown> = input.keys;
      const list: Argument[] = [];
      for (const one of keyNames) if (given[one] !== null) list.push(given[one] as string);
      if (input.eachKey !== undefined) list.push(...input.eachKey);
      const keyCount = list.length;
      if (input.fields !== undefined) pushValues(list, fieldNames, input.fields);
      for (const item of input.each ?? []) pushValues(list, itemNames, item);
      return (commands[name] as Command).call(redis, keyCount, ...list) as Promise<A>;
    },
  };
}
