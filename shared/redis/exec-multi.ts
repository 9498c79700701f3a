import type { ChainableCommander } from "ioredis";

/**
 * Sends commands as one transaction, for what Lua would copy too often. Rejects with what Redis says of the command
 * that it refused; nothing was done then.
 */
export async function execMulti(multi: ChainableCommander): Promise<void> {
  const answers = await multi.exec().catch((fault: Error & { previousErrors?: Error[] }) => {
    // Why a transaction was refused is said by the command that was.
    throw fault.previousErrors?.[0] ?? fault;
  });
  for (const [fault] of answers ?? []) if (fault !== null) throw fault;
}
