/** The CPU time in ms that this process takes for a call. Other processes that keep the machine busy add nothing. */
export function cpuMs(call: () => void): number {
  const before = process.cpuUsage();
  call();
  const { system, user } = process.cpuUsage(before);
  return (user + system) / 1000;
}
