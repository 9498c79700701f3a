import type { RefusedModel } from "@millrace/shared/models/refused-models.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { quote } from "../http/quote.js";

/**
 * `model_not_found` for a name that no worker has announced, or whose last version is gone; with the reason where
 * workers refuse it.
 */
export function unknownModel(name: string, refused: readonly RefusedModel[] = []): ServiceError {
  const own = refused.find(({ model }) => model === name);
  if (own === undefined) {
    return new ServiceError("model_not_found", `There is no model ${quote(name)}. GET /v1/models lists the models.`);
  }
  const what = own.version === null ? "" : ` version ${own.version}`;
  return new ServiceError("model_not_found", `The model ${quote(name)} is refused${what}: ${own.reason}`);
}
