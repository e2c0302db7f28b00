// Polls the server while the page is visible, and loads and unloads models with the server's token.

import { SILENCE, byId, sentence, write } from "./page-dom.js";
import * as tables from "./page-tables.js";
import * as trial from "./page-try.js";

const SECOND = 1000;
const PATIENCE = 5 * SECOND; // for one poll
const LONGEST_PAUSE = 8 * SECOND; // between polls that fail
let pause = SECOND;
let timer;
let current = null; // the current poll
let latest = ""; // when the server last answered

async function poll() {
  clearTimeout(timer);
  if (document.hidden || current) return;
  current = look();
  try {
    await current;
  } finally {
    current = null;
    timer = setTimeout(poll, pause);
  }
}

// Wait for the current poll, and delay the next one.
async function quiet() {
  await current;
  clearTimeout(timer);
  timer = setTimeout(poll, pause);
}

async function look() {
  let response, residency;
  try {
    response = await fetch("residency", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    residency = response.ok && (await response.json());
  } catch {
    return fail(SILENCE);
  }
  if (!response.ok) return fail(await sentence(response));
  // The server's clock, which may differ from the browser's.
  const now = (Date.parse(response.headers.get("Date")) || Date.now()) / SECOND;
  pause = SECOND;
  latest = new Date().toLocaleTimeString();
  report("");
  trial.offer(residency.strategies);
  tables.show(residency, now);
}

function fail(trouble) {
  pause = byId("trouble").hidden ? SECOND : Math.min(2 * pause, LONGEST_PAUSE);
  report(trouble);
}

function report(trouble) {
  const since = latest ? ` The figures below are from ${latest}.` : "";
  write(byId("trouble"), trouble && `${trouble}${since} This page keeps trying.`);
  byId("trouble").hidden = !trouble;
}

// Load or unload a model; returns a sentence about the result.
async function steer({ action, model, strategy, node }) {
  const response = await fetch(`models/${encodeURIComponent(model)}/${action}`, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Authorization: `Bearer ${byId("token").value}`,
      ...(node && { "X-Residency-Node": node }), // a balancer sends it there
    },
    body: JSON.stringify({ strategy }),
  });
  if (response.ok) return `${model} is ${(await response.json()).state} under ${strategy}${node ? ` on ${node}` : ""}.`;
  if (response.status === 404) return "Models cannot be managed here: start the server with RESIDENCY_TOKEN.";
  return sentence(response);
}

byId("steer").addEventListener("submit", (event) => event.preventDefault());
byId("token").addEventListener("input", ({ target }) => {
  byId("models").classList.toggle("steered", target.value !== "");
});
byId("models").addEventListener("click", async ({ target }) => {
  if (!target.dataset.action) return;
  write(byId("steered"), `${target.getAttribute("aria-label")} …`);
  write(byId("steered"), await steer(target.dataset).catch(() => SILENCE));
  poll();
});

document.addEventListener("visibilitychange", poll);
trial.listen(quiet);
poll();
