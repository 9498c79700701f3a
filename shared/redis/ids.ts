import { createHash, randomFillSync } from "node:crypto";

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
const tagLength = 8;
const randomLength = 20;
const idPattern = new RegExp(`^[${alphabet}]{${tagLength + randomLength}}$`);

const toBase32 = (bytes: Uint8Array, length: number, from = 0): string => {
  let text = "";
  for (let i = 0; i < length; i++) text += alphabet[(bytes[from + i] as number) & 31];
  return text;
};

/** The hash tag of a model: 40 bits of its name's SHA-256. */
export function modelTag(model: string): string {
  return toBase32(createHash("sha256").update(model).digest(), tagLength);
}

const pool = new Uint8Array(4000);
let used = pool.length;

/** A new id of a prediction or delivery of the model with that tag: the tag and 20 random characters, 100 bits. */
export function newId(tag: string): string {
  if (used + randomLength > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const id = tag + toBase32(pool, randomLength, used);
  used += randomLength;
  return id;
}

/** The tag that an id begins with, or null when the text cannot be an id. */
export function tagOfId(id: string): string | null {
  return idPattern.test(id) ? id.slice(0, tagLength) : null;
}
