// npm run licences: every package that runs in production has a licence of the list below. Reads package-lock.json and
// node_modules, no network. Names each other package with its licence, and ends with exit code 1. The first argument
// is the folder to look at, this repository by default.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** SPDX ids of licences that ask for no more than their notice. */
const allowed = new Set(["MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Unlicense", "CC0-1.0"]);

/** Further licences of some packages: libvips is a shared library of its own, which sharp loads and nobody changes. */
const exceptions = [{ packages: /^@img\/sharp-(libvips-|wasm32$|win32-)/, licences: ["LGPL-3.0-or-later"] }];

/** Whether one choice that the SPDX expression leaves is allowed; throws a SyntaxError for no expression. */
function isAllowed(expression, isListed) {
  const tokens = expression.match(/[()]|[^\s()]+/g) ?? [];
  const fault = () => new SyntaxError(`"${expression}" is not an SPDX expression`);
  const all = (operator, next) => {
    const parts = [next()];
    while (tokens[0] === operator) {
      tokens.shift();
      parts.push(next());
    }
    return parts;
  };
  const term = () => {
    const token = tokens.shift();
    if (token === "(") {
      const inner = choice();
      if (tokens.shift() !== ")") throw fault();
      return inner;
    }
    if (token === undefined || /^(\)|AND|OR|WITH)$/.test(token)) throw fault();
    if (tokens[0] !== "WITH") return isListed(token);
    // A licence with an exception is another licence.
    return isListed([token, ...tokens.splice(0, 2)].join(" "));
  };
  const joint = () => all("AND", term).every(Boolean);
  const choice = () => all("OR", joint).some(Boolean);
  const answer = choice();
  if (tokens.length > 0) throw fault();
  return answer;
}

/** The licence that a package declares; null where it declares none, or none that is an expression. */
function licenceOf(root, path, entry) {
  const manifest = join(root, path, "package.json");
  // Of packages for other platforms only the lock file tells.
  const { license, licenses } = existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")) : entry;
  const named = license ?? (Array.isArray(licenses) ? licenses : undefined);
  const texts = [named ?? []].flat().map((one) => (typeof one === "string" ? one : one?.type));
  return texts.length > 0 && texts.every((text) => typeof text === "string") ? texts.join(" AND ") : null;
}

function checkLicences(root) {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const installed = Object.entries(packages).filter(
    ([path, { dev, link }]) => path.includes("node_modules/") && dev !== true && link !== true,
  );
  const refused = installed.flatMap(([path, entry]) => {
    const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
    const licence = licenceOf(root, path, entry);
    const also = exceptions.filter((each) => each.packages.test(name)).flatMap((each) => each.licences);
    try {
      if (licence !== null && isAllowed(licence, (id) => allowed.has(id) || also.includes(id))) return [];
    } catch (fault) {
      return [`${name} ${entry.version}: ${fault.message}`];
    }
    return [`${name} ${entry.version}: ${licence ?? "declares no licence"}`];
  });
  return { count: installed.length, refused };
}

const root = process.argv[2] ?? fileURLToPath(new URL("../", import.meta.url));
const { count, refused } = checkLicences(root);
if (refused.length > 0) {
  const remedy = "Take another package, or add the licence to .ci/licences.js once it has been looked at.";
  process.stderr.write(`Packages whose licence is not in the list:\n  ${refused.join("\n  ")}\n${remedy}\n`);
  process.exitCode = 1;
} else process.stdout.write(`${count} packages have licences of the list\n`);
