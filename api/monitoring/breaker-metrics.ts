import { Gauge, type Registry } from "prom-client";
import type { ModelDirectory } from "../models/model-directory.js";

const numbers = { closed: 0, half_open: 1, open: 2 } as const;

/** Registers `ml_circuit_breaker_state{model,version}`, of which every API tells the same, as it knew it last. */
export function registerBreakerMetrics(register: Registry, directory: ModelDirectory): void {
  new Gauge({
    name: "ml_circuit_breaker_state",
    help: "Whether a version is tried: 0 closed, 1 half-open, 2 open on every worker that has it",
    labelNames: ["model", "version"],
    registers: [register],
    collect() {
      this.reset();
      for (const { breakers, name: model } of directory.all()) {
        for (const [version, { state }] of breakers) this.set({ model, version }, numbers[state]);
      }
    },
  });
}
