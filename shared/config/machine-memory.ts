import { totalmem } from "node:os";

/** Memory of the machine, or of the cgroup that this process is in if that is less, in bytes. */
export function machineMemoryBytes(): number {
  // 0 or more than there is where no limit is set.
  const limit = process.constrainedMemory();
  const total = totalmem();
  return limit !== undefined && limit > 0 && limit < total ? limit : total;
}
