import { Gauge, type Registry } from "prom-client";
import type { StoreClock } from "./store-clock.js";
import type { StoreMarker } from "./store-marker.js";

/**
 * Registers `millrace_clock_offset_seconds`, this machine's clock less the store's, and `millrace_store_swapped`, 1
 * while the store is not the one that this process has known.
 */
export function showStore(register: Registry, clock: StoreClock, marker: StoreMarker): void {
  new Gauge({
    name: "millrace_clock_offset_seconds",
    help: "Clock of this machine less that of the store",
    registers: [register],
    collect() {
      this.set(clock.offsetMs() / 1000);
    },
  });
  new Gauge({
    name: "millrace_store_swapped",
    help: "1 if the store was emptied or replaced and no operator has accepted it",
    registers: [register],
    collect() {
      this.set(marker.complaint === null ? 0 : 1);
    },
  });
}
