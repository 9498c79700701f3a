/**
 * Webhook deliveries, which rest on these rules; a batch is to them what a prediction is:
 * - A caller who asks for a webhook becomes a follower of the prediction in the step that accepts or joins it, with
 *   an id for each delivery that may come of it.
 * - The step that makes the prediction final turns its followers into deliveries: record, copy of the body and job of
 *   the model's delivery queue, all in the model's slot. No process has to live for it.
 * - The start is told when the run begins; later followers are told of it together with the end.
 * - A delivery that exists is not made again, so every step here may be repeated.
 * - The body is kept once for all followers, counted, until each one's schedule has ended; after that for the result
 *   time.
 */
export const webhookEvents = {
  predictionStarted: "prediction.started",
  predictionCompleted: "prediction.completed",
  batchCompleted: "batch.completed",
} as const;
export type WebhookEvent = (typeof webhookEvents)[keyof typeof webhookEvents];

/** Those of single predictions. */
export const predictionEvents = [webhookEvents.predictionStarted, webhookEvents.predictionCompleted] as const;

export interface Follower {
  owner: string;
  url: string;
  /** Event → delivery id. */
  ids: Partial<Record<WebhookEvent, string>>;
}

/** The name of every delivery's job, as Bull Board shows it, and its data; the delivery itself has its own key. */
export const deliveryJobName = "delivery";
export const deliveryJobData = '{"v":1}';

/** Stands between a delivery's id and the number of its redelivery in the id of the redelivery's job. */
export const beforeRedelivery = "-";

/** The delivery of a job in the delivery queue. */
export const deliveryOfJob = (jobId: string): string => jobId.split(beforeRedelivery, 1)[0] as string;

/** Lifetime of a delivery while its schedule runs. */
export const deliveryKeptMs = 30 * 86_400_000;

/** The body of a webhook; `atMs` is when the event happened, the same on every try. */
export const webhookBody = (event: WebhookEvent, atMs: number, dataJson: string): string =>
  `${webhookBodyStart(event, atMs)}${dataJson}}`;

/** The body up to its data, after which only the data and a brace are missing. */
export const webhookBodyStart = (event: WebhookEvent, atMs: number): string =>
  `{"type":"${event}","timestamp":"${new Date(atMs).toISOString()}","data":`;
