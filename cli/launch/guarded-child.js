import { spawn } from "node:child_process";

/**
 * The shell between this process and a child watches descriptor 3: it closes when this process ends, in whatever way,
 * and then the child is ended. SIGTERM is repeated, because a Redis that writes its first append-only file ignores it.
 */
const guard = `"$@" 3<&- & pid=$!
echo $pid
{
  cat >/dev/null
  i=0
  while [ $i -lt 14 ]; do
    kill $pid 2>/dev/null || exit 0
    sleep 0.25
    i=$((i + 1))
  done
  kill -9 $pid 2>/dev/null
} <&3 >/dev/null 2>&1 & watcher=$!
wait $pid
code=$?
kill $watcher 2>/dev/null
exit $code`;

/** The same for a child with children of its own, which loses nothing: its whole process group is killed. */
const groupGuard = `{ cat >/dev/null; kill -9 -$$; } <&3 >/dev/null 2>&1 & watcher=$!
"$@" 3<&-
code=$?
kill $watcher 2>/dev/null
exit $code`;

/**
 * Starts a program that ends when this process ends, even by SIGKILL. Closing descriptor 3 of the child ends it too. In
 * a process group of its own, so that Ctrl-C does not end it before its users.
 *
 * `server`: its process id is the first line of the child's output; `task`: its output is this process's.
 * @param {"server" | "task"} kind
 * @param {readonly string[]} command
 * @param {string} [cwd]
 * @returns {import("node:child_process").ChildProcess}
 */
export function spawnGuarded(kind, command, cwd) {
  const isServer = kind === "server";
  return spawn("sh", ["-c", isServer ? guard : groupGuard, "sh", ...command], {
    stdio: ["ignore", isServer ? "pipe" : "inherit", isServer ? "ignore" : "inherit", "pipe"],
    detached: true,
    ...(cwd !== undefined && { cwd }),
  });
}
