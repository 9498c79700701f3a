import { type ParseArgsConfig, parseArgs } from "node:util";

/** The command line is wrong; the message says how. `main` answers with the usage and exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
  readonly exitCode = 2;
}

type Options = NonNullable<ParseArgsConfig["options"]>;
type Parsed<O extends Options> = ReturnType<typeof parseArgs<{ args: string[]; options: O; allowPositionals: true }>>;

/** Reads options and positional arguments. Throws a UsageError for an unknown option, or one without its value. */
export function readArguments<O extends Options>(args: readonly string[], options: O): Parsed<O> {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (fault) {
    // Node's message goes on with advice about arguments that begin with a dash.
    throw new UsageError((fault as Error).message.split(". ")[0]);
  }
}
