type Json = Record<string, unknown>;

const escaped: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const html = (text: unknown): string => String(text).replace(/[&<>"]/g, (c) => escaped[c] as string);
/** `code` in a text. */
const prose = (text: unknown): string => html(text).replace(/`([^`]+)`/g, "<code>$1</code>");
const pretty = (value: unknown): string => `<pre>${html(JSON.stringify(value, null, 2))}</pre>`;

interface Operation {
  summary: string;
  description?: string;
  parameters?: { name: string; in: string; description?: string; schema: Json }[];
  requestBody?: { content: Record<string, { schema: Json }> };
  responses: Record<string, { description?: string; content?: Record<string, { schema: Json }> }>;
}

/** The OpenAPI document as a page without scripts, which needs nothing from anywhere else. */
export function docsPage(document: Json): string {
  const { description, title, version } = document.info as Record<string, string>;
  const paths = document.paths as Record<string, Record<string, Operation>>;
  const { schemas } = document.components as { schemas: Record<string, Json> };
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([method]) => method !== "parameters")
      .map(([method, operation]) => operationSection(method, path, operation)),
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${html(title)} API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<header><h1>${html(title)} API <span class="quiet">${html(version)}</span></h1>
<a href="/">Try it</a><a href="/openapi.json">OpenAPI</a></header>
<p>${prose(description)} Send a key as <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>.</p>
<h2>Paths</h2>
${operations.join("\n")}
<h2>Schemas</h2>
${Object.entries(schemas)
  .map(([name, schema]) => `<details id="${html(name)}"><summary>${html(name)}</summary>${pretty(schema)}</details>`)
  .join("\n")}
</body>
</html>
`;
}

/** Media types, each with a link to its schema. */
function typesOf(content: Record<string, { schema: Json }> = {}): string[] {
  return Object.entries(content).map(([type, { schema }]) => {
    const name = String(schema.$ref ?? "")
      .split("/")
      .at(-1) as string;
    return `<code>${html(type)}</code>${name === "" ? "" : ` <a href="#${html(name)}">${html(name)}</a>`}`;
  });
}

function operationSection(method: string, path: string, operation: Operation): string {
  const { description, parameters = [], requestBody, responses, summary } = operation;
  const rows = parameters.map(
    (parameter) =>
      `<tr><td><code>${html(parameter.name)}</code></td><td>${html(parameter.in)}</td>` +
      `<td>${prose(parameter.description ?? "")}</td></tr>`,
  );
  const bodies = typesOf(requestBody?.content);
  const answers = Object.entries(responses).map(
    ([status, { content, description: what }]) =>
      `<tr><td>${html(status)}</td><td>${prose(what ?? "A problem")}</td><td>${typesOf(content).join(" ")}</td></tr>`,
  );
  return `<details>
<summary><span class="method">${html(method.toUpperCase())}</span> <code>${html(path)}</code>
<span class="quiet">${prose(summary)}</span></summary>
<p>${prose(description ?? "Without a key")}</p>
${rows.length > 0 ? `<table>${rows.join("")}</table>` : ""}
${bodies.length > 0 ? `<p>Body: ${bodies.join(", ")}</p>` : ""}
<table>${answers.join("")}</table>
</details>`;
}
