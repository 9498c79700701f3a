import type { RedisClient } from "../connect-redis.js";

/** A Lua step that Redis carries out as one. */
export interface Script {
  name: string;
  lua: string;
}

type Command = (keyCount: number, ...keysAndArguments: (string | number | Buffer)[]) => Promise<unknown>;

/** Runs a step on keys that are all of one model, hence of one slot. The script's text travels once a connection. */
export function runScript(
  redis: RedisClient,
  script: Script,
  keys: readonly string[],
  args: readonly (string | number | Buffer)[],
): Promise<unknown> {
  const commands = redis as unknown as Record<string, Command | undefined>;
  if (commands[script.name] === undefined) redis.defineCommand(script.name, { lua: script.lua });
  return (commands[script.name] as Command).call(redis, keys.length, ...keys, ...args);
}
