import { monitorEventLoopDelay } from "node:perf_hooks";
import { Gauge, type Registry } from "prom-client";

const resolutionMs = 10;

/** Registers `ml_event_loop_lag_seconds{quantile}`: how much later than due timers ran since the last scrape. */
export function measureEventLoopLag(register: Registry): { close(): void } {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  new Gauge({
    name: "ml_event_loop_lag_seconds",
    help: "Event-loop delay since the last scrape, by quantile",
    labelNames: ["quantile"],
    registers: [register],
    collect() {
      for (const quantile of [0.5, 0.99, 0.999, 1]) {
        const nanoseconds = delay.percentile(Math.min(100, Math.max(0.001, quantile * 100)));
        this.set({ quantile: String(quantile) }, Math.max(0, nanoseconds / 1e9 - resolutionMs / 1e3));
      }
      delay.reset();
    },
  });
  return { close: () => delay.disable() };
}
