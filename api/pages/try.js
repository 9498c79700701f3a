// Runs in the browser, on the page of `try-page.ts`. Nothing of an answer is ever written as HTML.
const find = (id) => document.getElementById(id);
const mostShown = 10;
let models = [];

async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: {
      Authorization: `Bearer ${find("key").value.trim()}`,
      Accept: "application/json",
      ...(body !== undefined && { "Content-Type": "application/json", Prefer: "wait=30" }),
    },
    ...(body !== undefined && { body }),
  });
  const answer = await response.json();
  if (response.ok) return answer;
  const errors = (answer.errors ?? []).map(({ detail, pointer }) => `${pointer || "body"}: ${detail}`);
  throw new Error([`${response.status} ${answer.title}: ${answer.detail}`, ...errors.slice(0, 10)].join("\n"));
}

/** Does something that can fail, and shows how. */
async function attempt(button, act) {
  find("fault").textContent = "";
  button.disabled = true;
  try {
    await act();
  } catch (fault) {
    find("answer").hidden = true;
    find("fault").textContent = fault.message;
  } finally {
    button.disabled = false;
  }
}

function showModel() {
  const model = models.find(({ name }) => name === find("model").value);
  if (model === undefined) return;
  const workers = `${model.workers_alive} ${model.workers_alive === 1 ? "worker" : "workers"}`;
  find("about").textContent =
    `${model.description ?? model.title} · ${model.kind} · version ${model.default_version} · ${workers}`;
  find("input").value = model.sample_input === null ? "" : JSON.stringify(model.sample_input, null, 1);
  const image = model.kind === "image";
  find("file").hidden = !image;
  find("file-label").hidden = !image;
  find("answer").hidden = true;
}

function showAnswer(prediction) {
  const { error, output, status, timings } = prediction;
  const verdict = output?.label ?? output?.value;
  const certainty = typeof output?.confidence === "number" ? ` (${(100 * output.confidence).toFixed(1)} %)` : "";
  find("verdict").textContent = verdict === undefined ? status : `${verdict}${certainty}`;
  find("timings").textContent =
    timings === null
      ? (error?.detail ?? (prediction.cached ? "from the cache" : status))
      : `queued ${timings.queue_ms} ms, inference ${timings.inference_ms} ms, in all ${timings.total_ms} ms`;
  const rows = Object.entries(output?.probabilities ?? {})
    .sort(([, a], [, b]) => b - a)
    .slice(0, mostShown);
  find("probabilities").replaceChildren(
    ...rows.map(([label, probability]) => {
      const row = document.createElement("tr");
      const bar = document.createElement("progress");
      bar.max = 1;
      bar.value = probability;
      for (const content of [label, bar, probability.toFixed(4)]) row.insertCell().append(content);
      row.lastElementChild.className = "number";
      return row;
    }),
  );
  find("raw").textContent = JSON.stringify(prediction, null, 2);
  find("answer").hidden = false;
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(event.submitter, async () => {
    const { data, refused } = await call("GET", "/v1/models");
    models = data;
    find("model").replaceChildren(
      ...models.map(({ name, title }) => new Option(title === name ? name : `${title} (${name})`, name)),
    );
    find("try-form").hidden = models.length === 0;
    if (models.length > 0) showModel();
    if (refused.length > 0) {
      const reasons = refused.map(({ model, reason, version }) => `${model}${version ? `/${version}` : ""}: ${reason}`);
      throw new Error(`Refused: ${reasons.join(" \u2014 ")}`);
    }
    if (models.length === 0) throw new Error("No worker has announced a model yet.");
  });
});

find("model").addEventListener("change", showModel);

find("file").addEventListener("change", () => {
  const [file] = find("file").files;
  if (file === undefined) return;
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    find("input").value = JSON.stringify(reader.result);
  });
  reader.readAsDataURL(file);
});

find("try-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(find("run"), async () => {
    let input;
    try {
      input = JSON.parse(find("input").value);
    } catch {
      throw new Error("The input is not JSON.");
    }
    const path = `/v1/models/${encodeURIComponent(find("model").value)}/predictions`;
    showAnswer(await call("POST", path, JSON.stringify({ input, cache: false })));
  });
});
