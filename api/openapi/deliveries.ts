import { listOf, type Operations } from "../http/operation.js";
import { deliverySchema } from "../predictions/prediction-schema.js";

const deliveryList = listOf(deliverySchema, "DeliveryList");

/** The operations of `routes/deliveries.ts`. */
export const deliveryOperations: Operations = {
  "/v1/predictions/{id}/deliveries": {
    get: {
      summary: "See the webhooks of a prediction",
      scope: "read",
      answers: { 200: ["Every delivery and every try", deliveryList] },
    },
  },
  "/v1/batches/{id}/deliveries": {
    get: {
      summary: "See the webhooks of a batch",
      scope: "read",
      answers: { 200: ["Every delivery and every try", deliveryList] },
    },
  },
  "/v1/deliveries/{id}/redeliver": {
    post: {
      summary: "Deliver a webhook once more",
      scope: "predict",
      answers: { 202: ["On its way", deliverySchema] },
    },
  },
};
