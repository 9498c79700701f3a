import { predictionJson } from "@millrace/shared/predictions/prediction.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { endPrediction, type LookUpDependencies, lookUpPrediction, readOwned, viewOf } from "./look-up-prediction.js";

/** Ends a prediction as canceled, wherever it is. Throws `state_conflict` where it was final before. */
export async function cancelPrediction(deps: LookUpDependencies, owner: string, id: string): Promise<string> {
  const { model, read } = await readOwned(deps, owner, id);
  if ("final" in read) throw finalAlready(read.final.status);
  const view = viewOf(model, id, read);
  if (view.status === "expired") throw finalAlready((await lookUpPrediction(deps, owner, id)) && "expired");
  const json = predictionJson({ ...view, status: "canceled", finishedAt: Date.now(), queuePosition: null });
  const outcome = await endPrediction(
    deps,
    model,
    id,
    read.data,
    "any",
    { owner, status: "canceled", json },
    view.startedAt !== null,
  );
  if (outcome !== "written") throw finalAlready("final");
  deps.log.info("prediction canceled", { prediction_id: id, model: model.name, request_id: read.data.r });
  return json;
}

const finalAlready = (status: string) => new ServiceError("state_conflict", `it is ${status} already`);
