// BullMQ ships the types of these files only in its other module format.
declare module "bullmq/dist/cjs/scripts/addDelayedJob-6.js" {
  export const addDelayedJob: { name: string; content: string; keys: number };
}
declare module "bullmq/dist/cjs/scripts/addStandardJob-9.js" {
  export const addStandardJob: { name: string; content: string; keys: number };
}
