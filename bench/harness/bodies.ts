import { sampleOf } from "@millrace/cli/start-stack.js";
import { changing } from "../load/load-spec.js";

/** The model of the load tests. */
export const forest = "intrusion-random-forest";

/** A submission of one made flow of 78 features, one of which is different in each request. */
export async function flowBody(): Promise<string> {
  const { input } = await sampleOf(forest, 1);
  const texts = (input as number[]).map(String);
  // Flow Duration, in microseconds: any number is valid, and float32 tells 24 bits apart.
  texts[1] = changing;
  return `{"input":[${texts.join(",")}]}`;
}
