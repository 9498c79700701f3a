import type { Finish } from "../scripts/predictions/finish.js";
import type { PredictionJob } from "./job.js";
import type { StoredResult } from "./prediction.js";

/** The end of a prediction that is not of a run: its input is kept with it, so that it can be tried again. */
export function endFinish(
  id: string,
  data: PredictionJob,
  by: "unbegun" | "any",
  ended: Pick<StoredResult, "owner" | "status" | "json">,
  started: boolean,
): Finish {
  const result: StoredResult = { ...ended, input: data.x };
  const finish: Finish = { id, by, result, dedup: data.d ?? null, cache: null, started };
  if (data.f !== undefined) result.form = data.f;
  if (data.b !== undefined) {
    result.inputBytes = data.b;
    finish.blob = "keep";
  }
  return finish;
}
