import { modelTag, newId, tagOfId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { describe, expect, test } from "vitest";

describe("prediction ids", () => {
  test("are all different, of one form, and lead to their model, for 100,000 of them", () => {
    const tag = modelTag("intrusion-random-forest");
    const ids = new Set(Array.from({ length: 100_000 }, () => newId(tag)));
    expect(ids.size).toBe(100_000);
    const odd = [...ids].filter((id) => !/^[0-9a-hjkmnp-tv-z]{28}$/.test(id) || tagOfId(id) !== tag);
    expect(odd).toEqual([]);
  });

  test("are uniformly random in every character after the tag, so that they cannot be guessed", () => {
    const count = 32_000;
    const ids = Array.from({ length: count }, () => newId("00000000"));
    for (let at = 8; at < 28; at++) {
      const seen = new Map<string, number>();
      for (const id of ids) seen.set(id[at] as string, (seen.get(id[at] as string) ?? 0) + 1);
      expect(seen.size).toBe(32);
      // 1,000 each is expected, with a standard deviation of 31.
      expect(Math.max(...[...seen.values()].map((times) => Math.abs(times - count / 32)))).toBeLessThan(250);
    }
  });

  test("that are invalid lead to no model", () => {
    const id = newId(modelTag("slow"));
    const wrong = [
      "",
      "meta",
      "wait",
      "1",
      id.slice(1),
      `${id}0`,
      id.toUpperCase(),
      `${id.slice(0, 27)}:`,
      `i${id.slice(1)}`,
    ];
    expect(wrong.map(tagOfId)).toEqual(wrong.map(() => null));
  });

  test("share a hash tag with all keys of their model, and with no other model's", () => {
    const keys = modelKeys("p", "slow");
    const id = newId(keys.tag);
    const fixed = [keys.queuePrefix, keys.queue, keys.versions, keys.beats, keys.running, keys.deaths, keys.starts];
    const names = [...fixed, keys.webhookQueue, keys.cache].concat(
      [keys.result(id), keys.interest(id), keys.owned("a:b"), keys.dedup("hash")],
      [keys.idempotency("a:b", "{other}"), keys.delivery(id), keys.attempts(id), keys.deliveries(id)],
      keys.webhookBody(id, "prediction.completed"),
    );
    expect(names.map((name) => /^p:\{([^{}]+)\}/.exec(name)?.[1])).toEqual(names.map(() => keys.tag));
    expect(modelTag("slow2")).not.toBe(keys.tag);
    expect(new Set(names).size).toBe(names.length);
  });
});
