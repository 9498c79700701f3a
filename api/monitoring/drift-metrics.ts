import { readDrift } from "@millrace/shared/models/read-drift.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { Gauge, type Registry } from "prom-client";
import type { ModelDirectory } from "../models/model-directory.js";

/** Registers `ml_input_drift_psi`, of every version that has a baseline and inputs enough; read at each scrape. */
export function registerDriftMetrics(register: Registry, redis: RedisClient, directory: ModelDirectory): void {
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
          const { psi } = await readDrift(redis, model.keys, version, baseline);
          for (const [feature, value] of Object.entries(psi ?? {})) {
            this.set({ model: model.name, version, feature }, value);
          }
        }
      }
    },
  });
}
