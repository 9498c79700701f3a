/**
 * The variable by which a slot's environment carries its memory limit, in MiB; the kernel holds it where it can.
 */
export const slotMemoryVariable = "SLOT_MEMORY_LIMIT_MB";

/** The exit code of a slot that got no more memory. */
export const outOfMemoryExit = 71;

const mebibyteInKib = 1024;

/**
 * The command of a slot's process. On Linux a shell sets its limit of private memory (RLIMIT_DATA, see setrlimit(2))
 * and becomes it; other systems do not hold such a limit.
 */
export function slotCommand(
  args: readonly string[],
  environment: Record<string, string | undefined>,
): [command: string, args: string[]] {
  const limitMiB = environment[slotMemoryVariable];
  if (limitMiB === undefined || process.platform !== "linux") return [process.execPath, [...args]];
  const script = 'ulimit -d "$0" && exec "$@"';
  return ["/bin/sh", ["-c", script, String(Number(limitMiB) * mebibyteInKib), process.execPath, ...args]];
}

/** Whether a fault's text tells that there was no memory: of ONNX Runtime, of V8 or of the C++ library. */
export const tellsOfMemory = (text: string): boolean =>
  /bad[_ ]alloc|Failed to allocate memory|out of memory|Array buffer allocation failed|Cannot allocate memory/i.test(
    text,
  );
