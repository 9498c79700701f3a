import { lookup as dnsLookup } from "node:dns";
import { BlockList, isIP } from "node:net";
import { promisify } from "node:util";

/**
 * The allowed targets of webhooks. A URL is checked three times: its spelling, the addresses of its name at submission,
 * and the addresses in the look-up of the connection itself. Only public unicast addresses pass, unless
 * `WEBHOOK_ALLOW_HOSTS` allows the target.
 */
export interface WebhookAllowances {
  /** Names, and `*.name` for all below one. */
  names: readonly string[];
  /** Addresses and CIDR ranges; they open only URLs that spell an address in them. */
  addresses: BlockList;
}

/** A URL that may not be called; the message is safe for clients. */
export class WebhookTargetError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "WebhookTargetError";
  }
}

export interface WebhookTarget {
  url: URL;
  /** Host without brackets. */
  host: string;
  /** Whether the host itself is allowed by name or address, so that its addresses are not checked. */
  allowed: boolean;
}

const longestUrl = 2048;
const canonicalIpv4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

/** Reads `WEBHOOK_ALLOW_HOSTS`. Throws an Error that names the entry that cannot be read. */
export function parseAllowances(text: string): WebhookAllowances {
  const names: string[] = [];
  const addresses = new BlockList();
  for (const entry of text.split(/[\s,]+/).filter(Boolean)) {
    const [address = "", prefix, ...rest] = entry.split("/");
    const family = isIP(address);
    if (family !== 0) {
      const kind = family === 4 ? "ipv4" : "ipv6";
      const bits = prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix);
      // A typing error could allow far more than was meant, so nothing is guessed.
      const plain = prefix === undefined || (/^\d{1,3}$/.test(prefix) && rest.length === 0);
      if (!plain || bits > (family === 4 ? 32 : 128)) throw new Error(`has a bad range: ${entry}`);
      addresses.addSubnet(address, bits, kind);
    } else if (/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/i.test(entry)) names.push(entry.toLowerCase());
    else throw new Error(`has an entry that is not a valid address, range or name: ${entry}`);
  }
  return { names, addresses };
}

/** Checks the spelling of a URL. Throws a WebhookTargetError. */
export function checkSpelling(text: string, allow: WebhookAllowances): WebhookTarget {
  if (text.length > longestUrl) throw new WebhookTargetError(`a webhook URL has ${longestUrl} characters at the most`);
  // Spellings that URL parsers repair in silence (tabs, backslashes, other alphabets) are refused.
  const match = /^(https?):\/\/([^/?#\\]+)(?:[/?#][!-[\]-~]*)?$/i.exec(text);
  if (match === null) throw new WebhookTargetError("a webhook URL is a plain http or https URL");
  const authority = match[2] as string;
  if (authority.includes("@")) throw new WebhookTargetError("a webhook URL must not hold credentials");
  const spelled = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/i.exec(authority);
  if (spelled === null)
    throw new WebhookTargetError("the host of a webhook URL is a name or an address, and a port a number");
  const host = (spelled[1] as string).toLowerCase();
  const lastLabel = host.replace(/\.+$/, "").split(".").at(-1) as string;
  if (!host.startsWith("[") && /^(\d+|0x[0-9a-f]*)$/.test(lastLabel) && !canonicalIpv4.test(host)) {
    throw new WebhookTargetError("an address must be written as four decimal numbers, or in brackets");
  }
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new WebhookTargetError("a webhook URL must be a URL");
  }
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  if (port < 1024 && port !== 80 && port !== 443) {
    throw new WebhookTargetError("a port below 1024 must be 80 or 443");
  }
  const bare = url.hostname.replace(/^\[|\]$/g, "");
  const allowed = isAllowed(bare, allow);
  if (url.protocol !== "https:" && !allowed) throw new WebhookTargetError("a webhook URL must be https");
  if (!allowed && (isIP(bare) === 0 ? isInward(bare) : !isPublic(bare))) throw privateAddress();
  return { url, host: bare, allowed };
}

/**
 * As `checkSpelling`, and also that the name has only public addresses; a name without an address may get one later.
 */
export async function checkWebhookUrl(text: string, allow: WebhookAllowances): Promise<WebhookTarget> {
  const target = checkSpelling(text, allow);
  if (target.allowed || isIP(target.host) !== 0) return target;
  const addresses = await promisify(dnsLookup)(target.host, { all: true, verbatim: true }).catch(() => []);
  if (addresses.some(({ address }) => !isPublic(address))) throw privateAddress();
  return target;
}

const privateAddress = () =>
  new WebhookTargetError("the host of a webhook URL leads to a private, loopback, link-local or reserved address");

/** The root's dot says nothing; resolvers and hosts files take more of them in different ways. */
const withoutRootDots = (host: string): string => host.replace(/\.+$/, "");

/**
 * Names that mean the machine itself, whatever a resolver says: localhost and what is below it (RFC 6761), and what
 * hosts files call so.
 */
const inwardNames = /(?:^|\.)(?:localhost\d?|localdomain\d?|ip6-localhost|ip6-loopback)$/;

const isInward = (host: string): boolean => inwardNames.test(withoutRootDots(host));

function isAllowed(host: string, { addresses, names }: WebhookAllowances): boolean {
  const family = isIP(host);
  if (family !== 0) return addresses.check(host, family === 4 ? "ipv4" : "ipv6");
  const name = withoutRootDots(host);
  return names.some((entry) => (entry.startsWith("*.") ? name.endsWith(entry.slice(1)) : name === entry));
}

/** Whether an address is public unicast: IPv4 outside the special registries; IPv6 within 2000::/3, the same. */
export function isPublic(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !special.check(address, "ipv4");
  return family === 6 && globalUnicast.check(address, "ipv6") && !special.check(address, "ipv6");
}

const globalUnicast = new BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");

/** IANA's special-purpose registries, multicast, and the IPv6 ranges that carry an IPv4 address inside. */
const special = new BlockList();
for (const range of [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
]) {
  const [address, bits] = range.split("/");
  special.addSubnet(address as string, Number(bits), "ipv4");
}
for (const range of ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]) {
  const [address, bits] = range.split("/");
  special.addSubnet(address as string, Number(bits), "ipv6");
}
