import { monitorEventLoopDelay } from "node:perf_hooks";
import { Gauge, type Registry } from "prom-client";

const resolutionMs = 10;

/** Registers `ml_event_loop_lag_seconds{percentile}`: how much later than due timers ran since the last scrape. */
export function measureEventLoopLag(register: Registry): { close(): void } {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  new Gauge({
    name: "ml_event_loop_lag_seconds",
    help: "Event-loop delay since the last scrape, by percentile",
    labelNames: ["percentile"],
    registers: [register],
    collect() {
      for (const percentile of [50, 99, 99.9, 100]) {
        const nanoseconds = delay.percentile(percentile);
        this.set({ percentile }, Math.max(0, nanoseconds / 1e9 - resolutionMs / 1e3));
      }
      delay.reset();
    },
  });
  return { close: () => delay.disable() };
}
