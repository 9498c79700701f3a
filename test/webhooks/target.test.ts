import {
  checkSpelling,
  checkWebhookUrl,
  isPublic,
  parseAllowances,
  WebhookTargetError,
} from "@millrace/shared/access/webhook-target.js";
import { describe, expect, test } from "vitest";

const nothing = parseAllowances("");
const everything = parseAllowances("0.0.0.0/0, ::/0, *.com *.example.com localhost example.com internal *.internal");

describe("addresses", () => {
  const words = (text: string) => text.trim().split(/\s+/);

  test.each(
    words(
      "1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 198.20.0.1 223.255.255.255 " +
        "2606:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888",
    ),
  )("%s is public", (address) => expect(isPublic(address)).toBe(true));

  test.each([
    ["private", "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fd12:3456::1"],
    ["loopback", "127.0.0.1 127.255.255.254 ::1"],
    ["this network", "0.0.0.0 0.1.2.3 ::"],
    ["link-local", "169.254.0.1 fe80::1 fe80::1%eth0"],
    ["metadata", "169.254.169.254 100.100.100.200 fd00:ec2::254 192.0.0.192"],
    ["CGNAT", "100.64.0.0 100.127.255.255"],
    ["multicast", "224.0.0.1 239.255.255.255 ff02::1"],
    [
      "reserved",
      "240.0.0.1 255.255.255.255 192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 192.88.99.1 " +
        "2001:db8::1 3fff::1 100::1 5f00::1",
    ],
    ["IPv4-mapped", "::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:8.8.8.8 ::ffff:a9fe:a9fe"],
    ["IPv4-compatible", "::7f00:1 ::127.0.0.1 ::a00:1"],
    [
      "6to4, Teredo and NAT64",
      "2002::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001::1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::1",
    ],
    ["no address", "localhost 0x7f.1 127.1 2130706433 1.2.3 1.2.3.4.5"],
  ])("%s is not public", (_what, addresses) => {
    expect(words(addresses).filter((address) => isPublic(address))).toEqual([]);
  });
});

describe("URLs", () => {
  const refusedWhateverIsAllowed = [
    "https://0x7f.1/", "https://0x7f000001/", "https://0X7F.0.0.1/", "https://2130706433/", "https://0177.0.0.1/",
    "https://127.1/", "https://127.0.1/", "https://127.0.0.01/", "https://00.0.0.0/", "https://0/",
    "https://1.2.3.256/",
    "https://127.0.0.1./", "https://127.1./", "https://0x7f.1./", "https://%31%32%37.0.0.1/", "https://127.0.0.%31/",
    "https://127.0.0.1%2f@example.com/", "https://①②⑦.⓪.⓪.①/", "https://１２７.0.0.1/", "https://127。0。0。1/",
    "https://[::1/", "https://::1/", "https://[::1%25eth0]/", "https://[127.0.0.1]/", "https://[::ffff:127.1]/",
    "https://exa\tmple.com/", "https://example.com/\n", "\thttps://example.com/", " https://example.com/",
    "https://example.com/a b", "https:\\\\example.com/", "https://example.com\\@internal/", "https:/example.com/",
    "https:example.com", "//example.com/", "https:///example.com/", "https://", "", "example.com",
    "https://user:secret@example.com/", "https://user@example.com/", "https://@example.com/", "https://:@example.com/",
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "data:text/plain,x",
    "ws://example.com/", "unix:/var/run/redis.sock", "http+unix://%2Fvar%2Frun/",
    "https://example.com:0/", "https://example.com:22/", "https://example.com:25/", "https://example.com:1023/",
    "https://example.com:65536/", "https://example.com:99999/", "https://example.com:-1/", "https://example.com:6 379/",
    "https://example.com:/", "https://example.com:x/", `https://example.com/${"a".repeat(2048)}`,
  ]; // biome-ignore format: a list

  test.each(refusedWhateverIsAllowed)("%j is refused whatever is allowed", (url) => {
    expect(() => checkSpelling(url, everything)).toThrow(WebhookTargetError);
    expect(() => checkSpelling(url, nothing)).toThrow(WebhookTargetError);
  });

  test.each([
    "https://127.0.0.1/", "https://10.1.2.3:8443/", "https://169.254.169.254/latest/meta-data/", "https://100.64.1.1/",
    "https://224.0.0.1/", "https://255.255.255.255/", "https://0.0.0.0/", "https://[::]/", "https://[::1]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::7f00:1]/", "https://[2002:7f00:1::]/",
    "https://[64:ff9b::7f00:1]/", "https://[fe80::1]/", "https://[fd00::1]/", "https://[0:0:0:0:0:0:0:1]/",
    "http://8.8.8.8/", "http://example.com/", "HTTP://example.com/",
  ])("%s is refused unless it is allowed", (url) => {
    expect(() => checkSpelling(url, nothing)).toThrow(WebhookTargetError);
    expect(checkSpelling(url, everything).allowed).toBe(true);
  }); // biome-ignore format: a list

  test.each([
    "https://example.com", "https://example.com/", "https://example.com?a=1",
    "https://example.com:443/", "https://example.com:80/",
    "https://example.com:1024/", "https://EXAMPLE.com:8443/a/b?c=%20d#e", "https://8.8.8.8/",
    "https://[2606:4700::1111]/",
    "https://xn--bcher-kva.example/", "https://a_b.example.com/", "https://example.com./",
    "https://127.0.0.1.example.com/",
  ])("%s passes with nothing allowed", (url) => {
    expect(checkSpelling(url, nothing)).toMatchObject({ allowed: false });
  }); // biome-ignore format: a list

  test("an allowed address or range allows only URLs with an address in it, in any spelling", () => {
    const allow = parseAllowances("127.0.0.1 10.20.0.0/16\n::1, fd00::/8");
    const opened = (url: string) => {
      try {
        return checkSpelling(url, allow).allowed;
      } catch {
        return false;
      }
    };
    const open = [
      "http://127.0.0.1:8080/",
      "https://10.20.255.1/",
      "http://[::1]/",
      "https://[0:0::1]/",
      "https://[fd12::1]/",
    ];
    const shut = [
      "http://127.0.0.2/",
      "https://10.21.0.1/",
      "https://[::2]/",
      "https://[fe80::1]/",
      "http://localhost/",
      "https://0x7f.0.0.1/",
      "http://127.0.0.1.example.com/",
      "http://127.0.0.1:22/",
      "http://a@127.0.0.1/",
    ];
    expect([open.filter((url) => !opened(url)), shut.filter(opened)]).toEqual([[], []]);
  });

  test("an allowed name allows itself, and *.name only its subdomains", () => {
    const allow = parseAllowances("Hooks.Internal,*.corp.example");
    const opened = (url: string) => checkSpelling(url, allow).allowed;
    expect(
      [
        "http://hooks.internal/",
        "http://HOOKS.internal.:8080/",
        "http://a.corp.example/",
        "http://a.b.corp.example/",
      ].every(opened),
    ).toBe(true);
    for (const host of ["a.hooks.internal", "xhooks.internal", "corp.example", "xcorp.example", "a.corp.example.com"]) {
      expect(opened(`https://${host}/`)).toBe(false);
      expect(() => opened(`http://${host}/`)).toThrow("must be https");
    }
  });

  test.each([
    "10.0.0.0/33",
    "::/129",
    "10.0.0.0/x",
    "10.0.0.0/-1",
    "http://a",
    "a/b",
    "*",
    "*.*.a",
    "a..b",
    "256.1.1.1/8",
    "10.0.0.0/",
    "10.0.0.0/8/24",
  ])("an invalid entry, %s, is refused by name, not skipped", (entry) =>
    expect(() => parseAllowances(`example.com,${entry}`)).toThrow(entry),
  );

  test.each(["localhost"])(
    "a name that resolves to loopback (%s) is refused unless the name itself is allowed",
    async (name) => {
      await expect(checkWebhookUrl(`https://${name}/`, nothing)).rejects.toThrow(WebhookTargetError);
      await expect(checkWebhookUrl(`https://${name}/`, parseAllowances("127.0.0.0/8 ::1"))).rejects.toThrow("private");
      expect(await checkWebhookUrl(`http://${name}/`, parseAllowances(name))).toMatchObject({ allowed: true });
    },
  );

  test("a name that does not resolve yet is accepted, since it is checked again at each call", async () => {
    expect(await checkWebhookUrl("https://nowhere.invalid/", nothing)).toMatchObject({ allowed: false });
  });
});
