import type { RedisClient } from "../../redis/connect-redis.js";

/** A Lua step that Redis carries out as one. */
export interface Script {
  name: string;
  lua: string;
  /** Whether it is done although Redis has no memory left: what ends work and so makes room. */
  whenFull?: true;
}

/**
 * Redis refuses the first command of a step that may take memory, when it has none left, and none after a first write; so a
 * write that takes none comes first, and the step is done whole. It needs a key with a hash tag.
 */
export const evenWhenFull = (lua: string): string => `redis.call('DEL', KEYS[1] .. '~')\n${lua}`;

const textOf = ({ lua, whenFull }: Script): string => (whenFull ? evenWhenFull(lua) : lua);

type Command = (keyCount: number, ...keysAndArguments: (string | number | Buffer)[]) => Promise<unknown>;

/** Runs a step on keys that are all of one model, hence of one slot. The script's text travels once a connection. */
export function runScript(
  redis: RedisClient,
  script: Script,
  keys: readonly string[],
  args: readonly (string | number | Buffer)[],
): Promise<unknown> {
  const commands = redis as unknown as Record<string, Command | undefined>;
  if (commands[script.name] === undefined) redis.defineCommand(script.name, { lua: textOf(script) });
  return (commands[script.name] as Command).call(redis, keys.length, ...keys, ...args);
}
