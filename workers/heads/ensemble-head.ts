import type { TabularManifest } from "@millrace/shared/models/manifest.js";
import type { Ensemble } from "@millrace/shared/models/manifest-output.js";
import type { Head } from "./head.js";
import { type MemberView, memberOf, type Say } from "./members.js";
import { outputValues } from "./output-values.js";

/**
 * `{ label, confidence, probabilities, abstained, members }` of one row. An abstaining member has no vote; the votes of
 * the others are shared by weight. Where the first label leads the second by less than `min_margin`, or all members
 * abstain, the ensemble abstains: `label` is null, and the members' votes are still listed.
 */
export function ensemble(manifest: TabularManifest, { labels, members, vote }: Ensemble): Head {
  const { derived, features, tensor } = manifest.input;
  const columns = [
    ...features.map((entry) => (typeof entry === "string" ? entry : entry.name)),
    ...derived.map(({ name }) => name),
  ];
  const voters = members.map((member) => ({
    name: member.name,
    weight: member.weight,
    say: memberOf(member, labels, columns),
  }));

  const read: Head["read"] = (outputs, range) => {
    const row = range?.[0] ?? 0;
    const values = (outputs[tensor]?.data as Float32Array | undefined)?.subarray(
      row * columns.length,
      (row + 1) * columns.length,
    );
    if (values === undefined) return "the ensemble has no input tensor";
    const view: MemberView = { outputs, row, values };
    const total = new Float64Array(labels.length);
    const says: string[] = [];
    for (const { name, say, weight } of voters) {
      const said = say(view);
      if (typeof said === "string") return `member "${name}": ${said}`;
      if (said !== null) add(total, said, weight, vote.method);
      says.push(memberJson(name, said, labels));
    }
    return decide(total, labels, vote.min_margin, says);
  };
  const fault: Head["fault"] = (outputs) => {
    for (const member of members) {
      if (member.kind !== "classifier" && member.kind !== "anomaly") continue;
      const name = `${member.name}/${member.kind === "classifier" ? member.probabilities : member.score}`;
      const width = member.kind === "classifier" ? member.labels.length : 1;
      const found = outputValues(outputs[name], name, width, null);
      if (typeof found === "string") return found;
    }
    return null;
  };
  return { read, fault };
}

/** A soft vote is spread by the member's probabilities; a hard vote goes to its first label. */
function add(total: Float64Array, { best, probabilities }: Say, weight: number, method: "soft" | "hard"): void {
  if (method === "hard") total[best] = (total[best] as number) + weight;
  else for (let l = 0; l < total.length; l++) total[l] = (total[l] as number) + weight * (probabilities[l] as number);
}

function decide(total: Float64Array, labels: readonly string[], leastMargin: number, says: readonly string[]) {
  const sum = total.reduce((all, votes) => all + votes, 0);
  const shares = Array.from(total, (votes) => (sum === 0 ? 0 : votes / sum));
  const best = shares.reduce((first, share, l) => (share > (shares[first] as number) ? l : first), 0);
  const second = shares.reduce((most, share, l) => (l === best ? most : Math.max(most, share)), 0);
  const confidence = shares[best] as number;
  const abstained = sum === 0 || confidence - second < leastMargin;
  const probabilities = labels.map((label, l) => `${JSON.stringify(label)}:${shares[l]}`);
  const json =
    `{"label":${abstained ? "null" : JSON.stringify(labels[best])},"confidence":${confidence},` +
    `"probabilities":{${probabilities}},"abstained":${abstained},"members":[${says}]}`;
  return { json, confidence: abstained ? Number.NaN : confidence };
}

function memberJson(name: string, said: Say | null, labels: readonly string[]): string {
  const label = said === null ? null : labels[said.best];
  const confidence = said === null ? null : said.probabilities[said.best];
  return JSON.stringify({ name, label, confidence, abstained: said === null });
}
