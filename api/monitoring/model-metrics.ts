import { readDrift } from "@millrace/shared/models/read-drift.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { Gauge, type Registry } from "prom-client";
import type { ModelDirectory } from "../models/model-directory.js";

const numbers = { closed: 0, half_open: 1, open: 2 } as const;

/** Registers `ml_circuit_breaker_state{model,version}`, of which every API tells the same, as it knew it last. */
export function registerBreakerMetrics(register: Registry, directory: ModelDirectory): void {
  new Gauge({
    name: "ml_circuit_breaker_state",
    help: "Circuit breaker state: 0 closed, 1 half-open, 2 open on every worker that has it",
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

/** Registers `ml_input_drift_psi`, of every version that has a baseline and inputs enough; read at each scrape. */
export function registerDriftMetrics(
  register: Registry,
  redis: RedisClient,
  directory: ModelDirectory,
  clock: Clock,
): void {
  new Gauge({
    name: "ml_input_drift_psi",
    help: "Population stability index of a feature's inputs against the manifest's baseline, over all workers",
    labelNames: ["model", "version", "feature"],
    registers: [register],
    async collect() {
      this.reset();
      for (const model of directory.all()) {
        for (const [version, { announcement }] of model.versions) {
          const baseline = announcement.manifest.drift_baseline;
          if (baseline === undefined) continue;
          const { psi } = await readDrift(redis, model.keys, version, baseline, clock.now());
          for (const [feature, value] of Object.entries(psi ?? {})) {
            this.set({ model: model.name, version, feature }, value);
          }
        }
      }
    },
  });
}
