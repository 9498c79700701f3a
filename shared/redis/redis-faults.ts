const codes =
  "OOM|READONLY|NOREPLICAS|MISCONF|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|BUSY|NOAUTH|WRONGPASS|NOPERM";
/** Redis 6.2 puts the code of a script's refused command behind words of its own, later versions in front. */
const refusal = new RegExp(`(?:^|: -|because of: )(${codes})\\b`);

/**
 * The code with which Redis refuses a command for a reason of its own, from the error of a script or command; null for
 * every other error, such as a mistake in the command.
 */
export const refusalCode = (message: string): string | null => refusal.exec(message)?.[1] ?? null;
