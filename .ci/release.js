// npm run release -- patch | minor | major | X.Y.Z: gives every package, the chart and the images the next version,
// closes the changelog's section, commits and tags. Pushes nothing, and runs no tests. Fails where the version is not
// above the current one, the tree is not clean, or nothing is unreleased.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
const packages = ["shared", "api", "workers", "cli"];

function run(command, ...args) {
  const { error, status, stderr, stdout } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stderr}`);
  return stdout.trim();
}

/** Replaces the match of `pattern`; throws without one, so that no file silently keeps the old version. */
function edit(path, pattern, replacement) {
  const text = readFileSync(root + path, "utf8");
  if (!pattern.test(text)) throw new Error(`${path} has no ${pattern}`);
  writeFileSync(root + path, text.replace(pattern, replacement));
}

function nextVersion(current, bump) {
  if (/^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}$/.test(bump ?? "")) return bump;
  const [major, minor, patch] = current.split(".").map(Number);
  const next = { major: [major + 1, 0, 0], minor: [major, minor + 1, 0], patch: [major, minor, patch + 1] }[bump];
  if (next === undefined) throw new Error("Usage: npm run release -- patch | minor | major | X.Y.Z");
  return next.join(".");
}

function isAbove(version, current) {
  const [a, b] = [version, current].map((text) => text.split(".").map(Number));
  const i = a.findIndex((number, k) => number !== b[k]);
  return i >= 0 && a[i] > b[i];
}

function release(bump) {
  const { version: current } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
  const version = nextVersion(current, bump);
  if (!isAbove(version, current)) throw new Error(`${version} is not above the current version ${current}.`);
  if (run("git", "status", "--porcelain") !== "") {
    throw new Error("The tree has uncommitted changes: commit or stash them.");
  }
  if (run("git", "tag", "--list", `v${version}`) !== "") throw new Error(`The tag v${version} exists.`);
  const changelog = readFileSync(`${root}CHANGELOG.md`, "utf8");
  const unreleased = /^## \[Unreleased\]\n([\s\S]*?)(?=^## \[|(?![\s\S]))/m.exec(changelog)?.[1] ?? "";
  if (unreleased.trim() === "") throw new Error("CHANGELOG.md has nothing under [Unreleased].");

  // Edited here, because `npm version` of a workspace leaves the other packages' dependencies on it unchanged.
  for (const path of ["package.json", "package-lock.json", ...packages.map((name) => `${name}/package.json`)]) {
    const json = JSON.parse(readFileSync(root + path, "utf8"));
    for (const entry of json.packages === undefined ? [json] : Object.values(ownEntries(json.packages))) {
      entry.version = version;
      for (const name of packages) {
        if (entry.dependencies?.[`@millrace/${name}`] !== undefined) entry.dependencies[`@millrace/${name}`] = version;
      }
    }
    if (json.packages !== undefined) json.version = version;
    writeFileSync(root + path, `${JSON.stringify(json, null, 2)}\n`);
  }
  edit("deploy/chart/Chart.yaml", /^version: .*$/m, `version: ${version}`);
  edit("deploy/chart/Chart.yaml", /^appVersion: .*$/m, `appVersion: "${version}"`);
  for (const service of ["api", "worker"]) edit(`Dockerfile.${service}`, /^ARG VERSION=.*$/m, `ARG VERSION=${version}`);
  const date = new Date().toISOString().slice(0, 10);
  edit("CHANGELOG.md", /^## \[Unreleased\]$/m, `## [Unreleased]\n\n## [${version}] - ${date}`);

  run("git", "commit", "--all", "--message", `Release ${version}`);
  run("git", "tag", "--annotate", `v${version}`, "--message", `Millrace ${version}`);
  process.stdout.write(`v${version} is committed and tagged. Next:
  1. npm run check
  2. git push --follow-tags
  3. npm run build && node test/fixtures/releases/record.js ${version}
     Records its keys for the tests of later releases, before any other change: test/fixtures/releases/README.md
  4. npm run --silent sbom > millrace-${version}.cdx.json
     The bill of materials, to be published with the release
`);
}

/** A lock file's entries for the packages of this repository. */
function ownEntries(entries) {
  return Object.fromEntries(["", ...packages].map((path) => [path, entries[path]]));
}

try {
  release(process.argv[2]);
} catch (fault) {
  process.stderr.write(`${fault.message}\n`);
  process.exitCode = 1;
}
