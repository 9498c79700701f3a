import type { OnClose } from "./releasers.js";

/** What a figure has to keep to. */
export interface Goal {
  bound: "at most" | "at least" | "below";
  value: number;
}

/** One measured figure; `goal` is null where none is set. */
export interface Figure {
  name: string;
  value: number;
  unit: string;
  goal: string | null;
  met: boolean | null;
}

export interface ScenarioContext {
  /** A short run that only shows that the scenario still works; its figures mean nothing. */
  quick: boolean;
  onClose: OnClose;
  /** Tells what is going on, to standard error. */
  say(line: string): void;
}

/** Measures something on real processes; whatever it starts is let go of by `onClose`. */
export type Scenario = (context: ScenarioContext) => Promise<Figure[]>;

const signs = { "at most": "<=", "at least": ">=", below: "<" } as const;

/** A figure, held against its goal where it has one. */
export function figure(name: string, value: number, unit: string, goal: Goal | null = null): Figure {
  const rounded = Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(4));
  if (goal === null) return { name, value: rounded, unit, goal: null, met: null };
  const met =
    goal.bound === "at least"
      ? value >= goal.value
      : goal.bound === "at most"
        ? value <= goal.value
        : value < goal.value;
  return { name, value: rounded, unit, goal: `${signs[goal.bound]} ${goal.value}`, met };
}
