import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Certificate {
  key: string;
  cert: string;
}

/** Certificates for 127.0.0.1, made by openssl; the first two are issued by the authority in `authorityFile`. */
export interface Certificates {
  valid: Certificate;
  expired: Certificate;
  selfSigned: Certificate;
  /** For `NODE_EXTRA_CA_CERTS`. */
  authorityFile: string;
  remove(): Promise<void>;
}

/** Makes certificates; null without openssl. */
export async function makeCertificates(): Promise<Certificates | null> {
  const hasOpenssl = await run("openssl", ["version"]).then(
    () => true,
    () => false,
  );
  if (!hasOpenssl) return null;
  const dir = await mkdtemp(join(tmpdir(), "millrace-certificates-"));
  const openssl = (line: string) => run("openssl", line.split(" "), { cwd: dir });
  const newKey = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
  const named = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
  const read = async (name: string) => ({
    key: await readFile(join(dir, `${name}.key`), "utf8"),
    cert: await readFile(join(dir, `${name}.crt`), "utf8"),
  });
  await openssl(`req -x509 ${newKey} -keyout ca.key -out ca.crt -days 2 -subj /CN=millrace-test-authority`);
  await openssl(`req -x509 ${newKey} -keyout own.key -out own.crt -days 2 -subj /CN=own ${named}`);
  for (const [name, days] of [
    ["valid", 2],
    ["expired", -1],
  ] as const) {
    await openssl(`req ${newKey} -keyout ${name}.key -out ${name}.csr -subj /CN=${name} ${named}`);
    await openssl(
      `x509 -req -in ${name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out ${name}.crt -days ` +
        `${days} -copy_extensions copy`,
    );
  }
  return {
    valid: await read("valid"),
    expired: await read("expired"),
    selfSigned: await read("own"),
    authorityFile: join(dir, "ca.crt"),
    remove: () => rm(dir, { recursive: true, force: true }),
  };
}
