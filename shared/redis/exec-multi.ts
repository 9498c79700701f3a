import type { ChainableCommander } from "ioredis";

/**
 * Sends commands as one transaction, for data that Lua would copy too often. Rejects with the error of the refused
 * command; no command was done then.
 */
export async function execMulti(multi: ChainableCommander): Promise<void> {
  const answers = await multi.exec().catch((fault: Error & { previousErrors?: Error[] }) => {
    // The refused command has the reason for the refusal of the transaction.
    throw fault.previousErrors?.[0] ?? fault;
  });
  for (const [fault] of answers ?? []) if (fault !== null) throw fault;
}
