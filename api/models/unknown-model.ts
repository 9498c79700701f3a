import { ServiceError } from "@millrace/shared/service/errors.js";
import { quote } from "../http/quote.js";

/** `model_not_found` for a name that no worker has announced, or whose last version is gone. */
export const unknownModel = (name: string): ServiceError =>
  new ServiceError("model_not_found", `There is no model ${quote(name)}. GET /v1/models lists the models.`);
