import { spawnSync } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { root } from "../support/run/tools.js";

describe("a release", () => {
  let clone: string;
  const git = (...args: string[]): string => {
    const { status, stderr, stdout } = spawnSync("git", args, { cwd: clone, encoding: "utf8" });
    if (status !== 0) throw new Error(`git ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  };
  const release = (bump: string) =>
    spawnSync(process.execPath, [".ci/release.js", bump], { cwd: clone, encoding: "utf8" });
  const read = (path: string): string => readFileSync(join(clone, path), "utf8");

  beforeEach(() => {
    clone = mkdtempSync(join(tmpdir(), "millrace-release-"));
    git("clone", "--quiet", "--no-local", "--depth", "1", `file://${root}`, ".");
    git("config", "user.name", "Millrace");
    git("config", "user.email", "millrace@localhost");
  });
  afterEach(() => rmSync(clone, { recursive: true, force: true }));

  test("gives packages, chart and images one version, closes the changelog's section, and makes a tag", () => {
    const { status, stderr, stdout } = release("7.8.9");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    for (const step of [
      "npm run check",
      "git push --follow-tags",
      "releases/record.js 7.8.9",
      "> millrace-7.8.9.cdx.json",
    ]) {
      expect(stdout).toContain(step);
    }
    expect(git("describe", "--exact-match")).toBe("v7.8.9");
    expect(git("status", "--porcelain")).toBe("");
    for (const name of [".", "shared", "api", "workers", "cli"]) {
      const { dependencies = {}, version } = JSON.parse(read(`${name}/package.json`));
      expect(version, name).toBe("7.8.9");
      const own = Object.entries(dependencies).filter(([dependency]) => dependency.startsWith("@millrace/"));
      expect(own.map(([, wanted]) => wanted)).toEqual(own.map(() => "7.8.9"));
    }
    const lock = JSON.parse(read("package-lock.json"));
    expect([lock.version, lock.packages.api.version]).toEqual(["7.8.9", "7.8.9"]);
    expect(lock.packages.api.dependencies["@millrace/shared"]).toBe("7.8.9");
    expect(read("deploy/chart/Chart.yaml")).toMatch(/^version: 7\.8\.9\nappVersion: "7\.8\.9"$/m);
    for (const service of ["api", "worker"]) expect(read(`Dockerfile.${service}`)).toMatch(/^ARG VERSION=7\.8\.9$/m);
    expect(read("CHANGELOG.md")).toMatch(/^## \[Unreleased\]\n\n## \[7\.8\.9\] - \d{4}-\d\d-\d\d\n\n### /m);
  });

  test.each(["0.0.9", "current"])("is refused with version %s, which is not above the current one", (to) => {
    const { version: current } = JSON.parse(read("package.json"));
    const version = to === "current" ? current : to;
    const { status, stderr } = release(version);
    expect([status, stderr]).toEqual([1, `${version} is not above the current version ${current}.\n`]);
    expect([git("status", "--porcelain"), git("tag", "--list")]).toEqual(["", ""]);
  });

  test("is refused without a change to release, and with an uncommitted change", () => {
    expect(release("minor").status).toBe(0);
    const again = release("minor");
    expect([again.status, again.stderr]).toEqual([1, "CHANGELOG.md has nothing under [Unreleased].\n"]);
    appendFileSync(join(clone, "README.md"), "\n");
    const dirty = release("minor");
    expect([dirty.status, dirty.stderr]).toEqual([1, "The tree has uncommitted changes: commit or stash them.\n"]);
    expect(git("tag", "--list").split("\n")).toHaveLength(1);
  });
});
