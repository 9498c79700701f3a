import type { OnClose } from "./releasers.js";

/** The bound of a figure. */
export interface Goal {
  bound: "at most" | "at least" | "below";
  value: number;
}

/** One measured figure; `goal` is null without a bound. */
export interface Figure {
  name: string;
  value: number;
  unit: string;
  goal: string | null;
  met: boolean | null;
}

export interface ScenarioContext {
  /** A short run that only checks that the scenario still works; its figures are meaningless. */
  quick: boolean;
  onClose: OnClose;
  /** Reports progress to standard error. */
  say(line: string): void;
}

/** Measures real processes; everything that it starts is released by `onClose`. */
export type Scenario = (context: ScenarioContext) => Promise<Figure[]>;

const signs = { "at most": "<=", "at least": ">=", below: "<" } as const;

/** A figure, compared with its goal if it has one. */
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
