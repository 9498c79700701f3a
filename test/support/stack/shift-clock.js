// Preloaded into a service (`NODE_OPTIONS=--import=…`): the clock of its machine is off by MILLRACE_TEST_CLOCK_MS. With
// each SIGUSR2 it steps further by MILLRACE_TEST_CLOCK_STEP_MS, as it does when NTP sets it or a machine resumes.
const Real = globalThis.Date;
let offMs = Number(process.env.MILLRACE_TEST_CLOCK_MS ?? 0);
const stepMs = Number(process.env.MILLRACE_TEST_CLOCK_STEP_MS ?? 0);
if (stepMs !== 0) {
  process.on("SIGUSR2", () => {
    offMs += stepMs;
  });
}
const now = () => Real.now() + offMs;

globalThis.Date = new Proxy(Real, {
  apply: () => new Real(now()).toString(),
  construct: (target, args, self) => Reflect.construct(target, args.length === 0 ? [now()] : args, self),
  get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
});
