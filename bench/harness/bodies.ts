import { sampleOf } from "@millrace/cli/start-stack.js";
import { changing } from "../load/load-spec.js";

/** The model that load is measured with. */
export const forest = "intrusion-random-forest";

/** A submission of one made flow of 78 features, one of which differs with each request. */
export async function flowBody(): Promise<string> {
  const { input } = await sampleOf(forest, 1);
  const texts = (input as number[]).map(String);
  // Flow Duration, in microseconds: any number will do, and 24 bits of it are told apart by float32.
  texts[1] = changing;
  return `{"input":[${texts.join(",")}]}`;
}
