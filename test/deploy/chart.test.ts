import { apiSettings } from "@millrace/shared/config/api-config.js";
import { workerSettings } from "@millrace/shared/config/worker-config.js";
import { describe, expect, test } from "vitest";
import { hasTool, runTool, toolsBuilt } from "../support/run/tools.js";

const needed = ["redis.url=redis://redis:6379", `secrets.apiKeys=a:${"0".repeat(64)}`];
const outside = ["redis.existingSecret=redis", "redis.existingSecretKey=url", "secrets.existingSecret=keys"];
await toolsBuilt();
const hasHelm = hasTool("helm", "version");
const hasKubeconform = hasTool("kubeconform", "-v");

/** Rendered chart by values: number of resources of each kind, and text that it must or must not contain. */
const combinations: {
  name: string;
  set: string[];
  kinds: Record<string, number>;
  has?: string[];
  hasNot?: string[];
}[] = [
  {
    name: "only the required ones",
    set: needed,
    kinds: { Deployment: 3, PodDisruptionBudget: 3, NetworkPolicy: 3, Service: 1, Secret: 1, ServiceAccount: 1 },
    has: ["replicas: 2", "value: '*'", "terminationGracePeriodSeconds: 47", "terminationGracePeriodSeconds: 42"],
    hasNot: ["hostNetwork", "privileged: true", "kind: Ingress"],
  },
  {
    name: "existing secrets",
    set: outside,
    kinds: { Deployment: 3, PodDisruptionBudget: 3, NetworkPolicy: 3, Service: 1, ServiceAccount: 1 },
    has: ["name: redis\n", "key: url", "name: keys, key: API_KEYS"],
  },
  {
    name: "worker groups that scale separately, one of them to zero",
    set: [
      ...needed,
      "workers[0].name=intrusion,workers[0].models={intrusion-*},workers[0].autoscaling.enabled=true",
      "workers[1].name=images,workers[1].models={cats,dogs},workers[1].replicas=4,workers[1].slots=1",
    ],
    kinds: { Deployment: 4, PodDisruptionBudget: 4, ScaledObject: 1, NetworkPolicy: 3, Service: 1, Secret: 1 },
    has: ['model=~"intrusion-.*"', "minReplicaCount: 0", "value: cats,dogs", "replicas: 4", 'namespace="prod"'],
  },
  {
    name: "an API that scales by CPU, behind an Ingress with a certificate",
    set: [
      ...needed,
      "api.autoscaling.enabled=true",
      "api.ingress.enabled=true,api.ingress.host=ml.example.com,api.ingress.tlsSecret=cert,api.ingress.className=nginx",
    ],
    kinds: { Deployment: 3, HorizontalPodAutoscaler: 1, Ingress: 1 },
    has: ['"ml.example.com"', "secretName: cert", "ingressClassName: nginx"],
  },
  {
    name: "all monitoring",
    set: [
      ...needed,
      "monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true",
      "monitoring.rules.labels.release=prometheus,monitoring.rules.runbookUrl=https://wiki.example.com/millrace",
    ],
    kinds: { ServiceMonitor: 2, PrometheusRule: 1, ConfigMap: 1, Service: 2 },
    has: [
      "runbook_url: https://wiki.example.com/millrace#millracenoworker",
      "relabelings: [{ targetLabel: millrace, replacement: api }]",
      "relabelings: [{ targetLabel: millrace, replacement: worker }]",
      "alert: MillraceNoWorker",
      "millrace-overview.json",
      "release: prometheus",
    ],
  },
  {
    name: "Redis outside the cluster, a webhook receiver inside",
    set: [
      ...outside,
      "networkPolicy.redis.to[0].ipBlock.cidr=203.0.113.7/32,networkPolicy.redis.ports={6380}",
      "networkPolicy.webhooks.extraEgress[0].to[0].ipBlock.cidr=10.1.2.3/32",
      "webhooks.settings.WEBHOOK_ALLOW_HOSTS=10.1.2.3",
    ],
    kinds: { NetworkPolicy: 3 },
    has: ["cidr: 203.0.113.7/32", "cidr: 10.1.2.3/32", "port: 6380"],
  },
  {
    name: "no deliverers, no policies, no account, models from a volume, a registry",
    set: [
      ...needed,
      "webhooks.enabled=false,networkPolicy.enabled=false,serviceAccount.create=false",
      "workerDefaults.modelsVolume.persistentVolumeClaim.claimName=models",
      "image.registry=registry.example.com/team,image.tag=1.2.3,shutdownGraceSeconds=120",
      "settings.RESULT_TTL_SECONDS=3000000,api.settings.MAX_QUEUE_DEPTH=10",
    ],
    kinds: { Deployment: 2, PodDisruptionBudget: 2, Service: 1, Secret: 1 },
    has: [
      "image: registry.example.com/team/millrace-worker:1.2.3",
      "claimName: models",
      "mountPath: /models",
      "terminationGracePeriodSeconds: 132",
      'value: "3000000"',
    ],
    hasNot: ["component: webhooks", "kind: NetworkPolicy"],
  },
  {
    name: "secrets as files",
    set: [...outside, "secrets.asFiles=true"],
    kinds: { Deployment: 3 },
    has: [
      "{ name: REDIS_URL_FILE, value: /run/secrets/millrace/REDIS_URL }",
      "{ name: API_KEYS_FILE, value: /run/secrets/millrace/API_KEYS }",
      "{ name: WEBHOOK_SECRET_FILE, value: /run/secrets/millrace/WEBHOOK_SECRET }",
      "secret: { name: redis, items: [{ key: url, path: REDIS_URL }] }",
    ],
    hasNot: ["secretKeyRef"],
  },
  {
    name: "backups into a volume",
    set: [...needed, "backup.enabled=true,backup.volume.persistentVolumeClaim.claimName=backups,backup.keep=30"],
    kinds: { CronJob: 1, ConfigMap: 1, NetworkPolicy: 4 },
    has: ["claimName: backups", 'value: "30"', "command: [bash, /scripts/dump, /backups]"],
    hasNot: ["/scripts/bucket, put", "initContainers"],
  },
  {
    name: "backups through to a bucket, of a Redis with a certificate, with secrets as files",
    set: [
      ...outside,
      "secrets.asFiles=true,backup.enabled=true,backup.timeZone=Europe/Berlin,backup.redisCaSecret=redis-ca",
      "backup.bucket.url=https://s3.example.com/backups/millrace,backup.bucket.existingSecret=s3",
      "networkPolicy.backup.to[0].ipBlock.cidr=198.51.100.0/24",
    ],
    kinds: { CronJob: 1, ConfigMap: 1, NetworkPolicy: 4 },
    has: [
      "timeZone: Europe/Berlin",
      "command: [sh, /scripts/bucket, put, /backups]",
      "emptyDir: {}",
      "{ name: REDIS_CA_FILE, value: /run/redis-ca/ca.crt }",
      "cidr: 198.51.100.0/24",
    ],
  },
  {
    name: "an API at a port of every node",
    set: [...needed, "api.service.type=NodePort,api.service.nodePort=30080,api.service.externalTrafficPolicy=Local"],
    kinds: { Service: 1 },
    has: ["type: NodePort", "nodePort: 30080", "externalTrafficPolicy: Local"],
  },
];

/** The chart, rendered with values by `--set`, and with a file of values, where numbers are numbers. */
const render = (set: readonly string[], file: object = {}): string => {
  const values = set.flatMap((value) => ["--set", value]);
  const template = ["template", "t", "deploy/chart", "--namespace", "prod", "--kube-version", "1.31.0"];
  return runTool("helm", [...template, "-f", "-", ...values], JSON.stringify(file));
};

const documents = (text: string): string[] => text.split(/^---$/m).filter((part) => /^kind:/m.test(part));
const kindOf = (document: string): string => /^kind: (\w+)/m.exec(document)?.[1] as string;

describe.skipIf(!hasHelm)("the chart", () => {
  test("passes helm lint --strict", () => {
    runTool("helm", ["lint", "--strict", "deploy/chart", ...needed.flatMap((value) => ["--set", value])]);
  });

  for (const { has = [], hasNot = [], kinds, name, set } of combinations) {
    test(`values: ${name}`, () => {
      const text = render(set);
      const made: Record<string, number> = {};
      for (const document of documents(text)) made[kindOf(document)] = (made[kindOf(document)] ?? 0) + 1;
      expect(made).toMatchObject(kinds);
      for (const part of has) expect(text).toContain(part);
      for (const part of hasNot) expect(text).not.toContain(part);
      const withPods = (document: string) => ["Deployment", "CronJob"].includes(kindOf(document));
      for (const pod of documents(text).filter(withPods)) {
        expect(pod).toContain("runAsNonRoot: true");
        expect(pod).toContain("readOnlyRootFilesystem: true");
        expect(pod).toContain("drop: [ALL]");
        const names = [...pod.matchAll(/- (?:\{ )?name: ([A-Z_]+)/g)].map(([, variable]) => variable);
        expect(names, "no variable is set twice").toEqual([...new Set(names)]);
      }
    });
  }

  test("lets only webhook workers connect to addresses outside the cluster", () => {
    const policies = documents(render(needed)).filter((document) => kindOf(document) === "NetworkPolicy");
    const leaving = policies.filter((policy) => policy.includes("0.0.0.0/0"));
    expect(leaving.map((policy) => /^ {2}name: (\S+)/m.exec(policy)?.[1])).toEqual(["t-millrace-webhooks"]);
    for (const policy of policies) {
      const egress = policy.slice(policy.indexOf("\n  egress:"));
      // A rule without a peer would allow every destination on its ports.
      expect(egress.match(/^ {4}- /gm)?.length).toBe(egress.match(/^ {4,6}(- )?to:/gm)?.length);
    }
  });

  // Settings that the chart sets itself, or takes from secrets.
  const own = /^(PORT|HOST|REDIS_(URL|PASSWORD)|API_KEYS(_FILE)?|WEBHOOK_SECRET|WORKER_(PORT|ROLES|MODELS|SLOTS))$/;
  const settings = Object.keys({ ...apiSettings.shape, ...workerSettings.shape }).filter(
    (name) => !own.test(name) && !["SHUTDOWN_GRACE_SECONDS", "MODELS_DIR"].includes(name),
  );

  test.each([
    [0.8, "0.8"],
    [0.000001, "0.000001"],
    [1.25, "1.25"],
    [0, "0"],
    [100, "100"],
    [3_000_000, "3000000"],
    [2 ** 50, "1125899906842624"],
    [true, "true"],
    [false, "false"],
    ["", ""],
    ["0.80", "0.80"],
    ["alice:3,bob:0.5", "alice:3,bob:0.5"],
    ['a "b" \\c $d: #e', 'a "b" \\c $d: #e'],
  ])("passes every setting on as it was written: %j", (value, text) => {
    expect(settings.length).toBeGreaterThan(25);
    const values = Object.fromEntries(settings.map((name) => [name, value]));
    const places = [
      { settings: values },
      // What a component says is above what is said for all, also where it is 0, false or empty.
      {
        settings: Object.fromEntries(settings.map((name) => [name, "other"])),
        api: { settings: values },
        workerDefaults: { settings: values },
        webhooks: { settings: values },
      },
    ];
    for (const place of places) {
      const pods = documents(render(needed, place)).filter((document) => kindOf(document) === "Deployment");
      expect(pods).toHaveLength(3);
      for (const pod of pods) {
        const lines = [...pod.matchAll(/- name: ([A-Z_]+)\n +value: (".*")$/gm)];
        const rendered = new Map(lines.map(([, name, quoted]) => [name, JSON.parse(quoted as string)]));
        expect(settings.map((name) => [name, rendered.get(name)])).toEqual(settings.map((name) => [name, text]));
      }
    }
  });

  test("takes 0 and false of a group of workers for what they say, and large numbers without an exponent", () => {
    const text = render(needed, {
      shutdownGraceSeconds: 3_000_000,
      workerDefaults: { replicas: 3, autoscaling: { enabled: true, minReplicas: 2, cooldownSeconds: 30_000_000 } },
      workers: [
        { name: "off", models: ["a"], replicas: 0, autoscaling: { enabled: false } },
        { name: "zero", models: ["b"], autoscaling: { minReplicas: 0 } },
      ],
    });
    expect(text.match(/kind: ScaledObject/g)).toHaveLength(1);
    for (const part of ["replicas: 0", "minReplicaCount: 0", "cooldownPeriod: 30000000", "Seconds: 3000012"]) {
      expect(text).toContain(part);
    }
    expect(text).not.toMatch(/\de\+\d/);
  });

  test.each([
    ["no Redis", ["secrets.apiKeys=a"], /redis\.existingSecret or redis\.url/],
    ["no API keys", ["redis.url=redis://r"], /secrets\.existingSecret or secrets\.apiKeys/],
    ["a misspelt value", [...needed, "api.replcas=3"], /replcas/],
    ["a setting that the chart sets itself", [...needed, "settings.PORT=3"], /PORT/],
    ["backups without a place", [...needed, "backup.enabled=true"], /backup\.volume or backup\.bucket\.url/],
    [
      "a bucket without credentials",
      [...needed, "backup.enabled=true,backup.bucket.url=https://s3/b/p"],
      /backup\.bucket\.existingSecret/,
    ],
    ["an Ingress without a host", [...needed, "api.ingress.enabled=true"], /ingress/],
    [
      "two worker groups with one name",
      [...needed, "workers[0].name=a,workers[0].models={x}", "workers[1].name=a,workers[1].models={y}"],
      /two groups are named a/,
    ],
  ])("refused: %s", (_what, set, reason) => {
    expect(() => render(set)).toThrow(reason);
  });
});

describe.skipIf(!hasHelm || !hasKubeconform)("the rendered chart", () => {
  test("is valid for Kubernetes, KEDA and the Prometheus operator, for all values in the table", () => {
    const location = "deploy/chart-schemas/{{.ResourceKind}}{{.KindSuffix}}.json";
    const text = combinations.map(({ set }) => render(set)).join("\n---\n");
    const report = runTool("kubeconform", ["-strict", "-summary", "-schema-location", location, "-"], text);
    expect(report).toMatch(/Invalid: 0, Errors: 0, Skipped: 0/);
  });
});
