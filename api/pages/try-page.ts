/** The page to try every model in a browser; what it does is in `try.js`. */
export const tryPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/style.css">
<script type="module" src="/docs/try.js"></script>
</head>
<body>
<header>
  <h1>Millrace</h1>
  <a href="/docs">API</a>
  <a href="/openapi.json">OpenAPI</a>
  <a href="/admin/queues">Queues</a>
  <a href="/ready">Ready</a>
</header>
<main>
  <form id="key-form">
    <label for="key">API key (it stays in this page, and is gone when you close it)</label>
    <input id="key" type="password" autocomplete="off" spellcheck="false" required>
    <button>Show the models</button>
  </form>
  <form id="try-form" hidden>
    <label for="model">Model</label>
    <select id="model"></select>
    <p id="about" class="quiet"></p>
    <label for="file" id="file-label" hidden>Image</label>
    <input id="file" type="file" accept="image/*" hidden>
    <label for="input">Input, as JSON</label>
    <textarea id="input" spellcheck="false"></textarea>
    <button id="run">Predict</button>
  </form>
  <p id="fault" class="fault" role="alert"></p>
  <section id="answer" hidden aria-live="polite">
    <h2 id="verdict"></h2>
    <p id="timings" class="quiet"></p>
    <table id="probabilities"></table>
    <pre id="raw"></pre>
  </section>
</main>
</body>
</html>
`;
