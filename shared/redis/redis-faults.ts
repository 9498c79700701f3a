const codes =
  "OOM|READONLY|NOREPLICAS|MISCONF|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|BUSY|NOAUTH|WRONGPASS|NOPERM";
/**
 * Redis 6.2 puts what a script's command was refused for behind words of its own, later ones in front; so do all for a
 * transaction.
 */
const refusal = new RegExp(`(?:^|: -|because of: )(${codes})\\b`);

/**
 * The code by which Redis refuses a command for a reason that is the store's, as a script's or a command's error has
 * it; null for every other error, such as a mistake of our own.
 */
export const refusalCode = (message: string): string | null => refusal.exec(message)?.[1] ?? null;
