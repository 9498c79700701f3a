import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { root } from "../support/run/tools.js";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

interface Locked {
  license?: string;
  dev?: true;
  link?: true;
  optional?: true;
}

/** Runs the check on a folder with these packages in its lock file, and manifests of those that are installed. */
function check(locked: Record<string, Locked>, manifests: Record<string, object> = {}) {
  const folder = mkdtempSync(join(tmpdir(), "licences-"));
  folders.push(folder);
  const packages = Object.entries(locked).map(([path, entry]) => [path, { version: "1.2.3", ...entry }]);
  writeFileSync(join(folder, "package-lock.json"), JSON.stringify({ packages: Object.fromEntries(packages) }));
  for (const [path, manifest] of Object.entries(manifests)) {
    mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, path, "package.json"), JSON.stringify(manifest));
  }
  return run(folder);
}

function run(...args: string[]): { code: number | null; refused: string[] } {
  const { status, stderr } = spawnSync(process.execPath, [join(root, ".ci/licences.js"), ...args], {
    encoding: "utf8",
  });
  const refused = [...stderr.matchAll(/^ {2}(\S+) 1\.2\.3: (.*)$/gm)].map(([, name, why]) => `${name}: ${why}`);
  return { code: status, refused };
}

describe("the check of licences", () => {
  test("passes what is installed here", () => {
    expect(run()).toEqual({ code: 0, refused: [] });
  });

  test("refuses a package whose licence is not in the list, wherever in the tree it is, and names it", () => {
    const locked = {
      "node_modules/good": { license: "MIT" },
      "node_modules/bad": { license: "GPL-3.0-only" },
      "node_modules/good/node_modules/@scope/worse": { license: "SSPL-1.0" },
      "api/node_modules/own": { license: "UNLICENSED" },
    };
    const refused = ["bad: GPL-3.0-only", "@scope/worse: SSPL-1.0", "own: UNLICENSED"];
    expect(check(locked)).toEqual({ code: 1, refused });
  });

  test("refuses a package that declares no licence, or none that can be read", () => {
    const locked = {
      "node_modules/silent": {},
      "node_modules/file": { license: "SEE LICENSE IN LICENSE" },
      "node_modules/half": { license: "MIT OR" },
      "node_modules/open": { license: "(MIT" },
    };
    expect(check(locked)).toEqual({
      code: 1,
      refused: [
        "silent: declares no licence",
        'file: "SEE LICENSE IN LICENSE" is not an SPDX expression',
        'half: "MIT OR" is not an SPDX expression',
        'open: "(MIT" is not an SPDX expression',
      ],
    });
  });

  test("takes a choice where one of it is in the list, and a conjunction only where all of it is", () => {
    const locked = {
      "node_modules/choice": { license: "(GPL-2.0-only OR MIT)" },
      "node_modules/both": { license: "MIT AND GPL-2.0-only" },
      "node_modules/nested": { license: "(MIT OR GPL-2.0-only) AND ISC" },
      "node_modules/exception": { license: "Apache-2.0 WITH LLVM-exception" },
    };
    const refused = ["both: MIT AND GPL-2.0-only", "exception: Apache-2.0 WITH LLVM-exception"];
    expect(check(locked)).toEqual({ code: 1, refused });
  });

  test("believes the installed manifest rather than the lock file, in its old forms too", () => {
    const locked = {
      "node_modules/changed": { license: "MIT" },
      "node_modules/old": {},
      "node_modules/older": {},
    };
    const manifests = {
      "node_modules/changed": { license: "BUSL-1.1" },
      "node_modules/old": { licenses: [{ type: "MIT", url: "…" }] },
      "node_modules/older": { license: { type: "GPL-2.0-only" } },
    };
    const refused = ["changed: BUSL-1.1", "older: GPL-2.0-only"];
    expect(check(locked, manifests)).toEqual({ code: 1, refused });
  });

  test("leaves out what never runs in production, and grants an exception to nobody else", () => {
    const locked = {
      "node_modules/tool": { license: "GPL-3.0-only", dev: true as const },
      "node_modules/@millrace/api": { link: true as const },
      "node_modules/@img/sharp-libvips-linux-x64": { license: "LGPL-3.0-or-later", optional: true as const },
      "node_modules/@img/other": { license: "LGPL-3.0-or-later" },
    };
    expect(check(locked)).toEqual({ code: 1, refused: ["@img/other: LGPL-3.0-or-later"] });
  });
});

describe("npm run sbom", () => {
  test("names what runs in production, each with version and licence, and no tool", () => {
    const { status, stdout } = spawnSync("npm", ["run", "--silent", "sbom"], { cwd: root, encoding: "utf8" });
    expect(status).toBe(0);
    interface Component {
      purl: string;
      version: string;
      licenses?: unknown[];
    }
    const { bomFormat, components } = JSON.parse(stdout) as { bomFormat: string; components: Component[] };
    expect(bomFormat).toBe("CycloneDX");
    const named = components.map(({ purl }) => purl.replace(/^pkg:npm\/|@[^@]*$/g, ""));
    expect(named).toEqual(expect.arrayContaining(["express", "bullmq", "onnxruntime-node"]));
    expect(named).not.toContain("vitest");
    expect(components.filter(({ licenses, version }) => !version || !licenses?.length)).toEqual([]);
  });
});
