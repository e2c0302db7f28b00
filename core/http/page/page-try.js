// Sends a sentence to one strategy, or to each in turn, and shows the parts of the latency.

import { SILENCE, byId, element, milliseconds, options, sentence, write } from "./page-dom.js";
import { bar, partsOf, swatch } from "./page-draw.js";

const EVERY = "every";
const routes = new Map(); // by strategy
const answers = new Map(); // the most recent one of each strategy
let busy = false;

export function offer(strategies) {
  routes.clear();
  for (const { name, route } of strategies) routes.set(name, route.replace(/^\//, ""));
  options(byId("strategy"), [...routes.keys()]);
  const classifiers = strategies.flatMap(({ models }) => models.filter(classifies).map(({ model }) => model));
  options(byId("model"), [...new Set(classifiers)]);
  byId("try").hidden = byId("answers").hidden = classifiers.length === 0 && strategies.some(({ models }) => models.length);
  byId("no-try").hidden = !byId("try").hidden;
}

// What a model does is not known before its checkpoint has been found.
const classifies = ({ engine, tasks }) => !engine && (tasks?.includes("classify") ?? true);

// `quiet` stops polls for a second, so that they do not slow down the request.
export function listen(quiet) {
  byId("try").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    try {
      await quiet(); // the first poll gives the models and strategies
      const every = event.submitter?.name === EVERY;
      const chosen = every ? [...routes.keys()] : [byId("strategy").value].filter(Boolean);
      for (const strategy of chosen) {
        write(byId("said"), `Asking ${strategy} …`);
        await quiet();
        answers.set(strategy, await ask(strategy, byId("text").value, byId("model").value));
        show();
      }
      if (chosen.length) byId("said").replaceChildren(...spoken(chosen));
    } finally {
      busy = false;
    }
  });
}

async function ask(strategy, text, model) {
  const sent = performance.now();
  try {
    const response = await fetch(routes.get(strategy), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text, model }),
    });
    if (!response.ok) return { strategy, error: await sentence(response) };
    const { predictions: [prediction], cold } = await response.json();
    const total = performance.now() - sent;
    return { strategy, model, cold, total, ...prediction, parts: partsOf(response.headers.get("Server-Timing"), total) };
  } catch {
    return { strategy, error: SILENCE };
  }
}

const plain = (score) => score.toFixed(3); // a probability, or any number: a regression has no percentages
const warmth = (cold) => (cold ? "cold" : "warm");

// A line for those who see the bars; every answer for screen readers.
function spoken(chosen) {
  const all = chosen.map((name) => answers.get(name));
  const sentences = all.map(({ strategy, error, label, score, cold, total }) => {
    return `${strategy}: ${error ?? `${label} ${plain(score)}, ${warmth(cold)}, ${milliseconds(total)}.`}`;
  });
  if (all.length === 1) return sentences;
  const timed = all.filter(({ error }) => !error).sort((a, b) => a.total - b.total);
  const extremes = timed.length > 1 ? `Fastest ${timed[0].strategy}, slowest ${timed.at(-1).strategy}. ` : "";
  return [extremes, element("span", { class: "unseen" }, sentences.join(" "))];
}

function show() {
  const all = [...routes.keys()].flatMap((name) => answers.get(name) ?? []);
  const scale = Math.max(...all.map(({ total }) => total ?? 0));
  byId("answers").replaceChildren(...all.map((answer) => (answer.error ? failed(answer) : answered(answer, scale))));
}

function failed({ strategy, error }) {
  return element("li", {}, element("h3", {}, strategy), element("p", { class: "error" }, error));
}

function answered({ strategy, model, label, score, cold, total, parts }, scale) {
  return element(
    "li",
    {},
    element("h3", {}, strategy, " ", element("span", { class: "muted" }, model)),
    element("p", { class: "outcome" }, element("strong", {}, label), ` ${plain(score)}`),
    element("p", {}, element("span", { class: `badge ${warmth(cold)}` }, warmth(cold))),
    element("p", { class: "total" }, milliseconds(total)),
    bar(parts, scale),
    element("ul", { class: "legend" }, ...parts.map(legend)),
  );
}

function legend({ name, ms, kind }) {
  return element("li", {}, swatch(kind), ` ${name} `, element("span", { class: "figure" }, milliseconds(ms)));
}
