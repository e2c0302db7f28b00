// The tables: models in memory, latencies, loads and unloads.

import { ago, ahead, byId, bytes, duration, element, milliseconds, moment, write } from "./page-dom.js";
import { meter, strip, writeMeter } from "./page-draw.js";

const POLLS = 120; // in a strip, one a second
const EVENTS = 10; // shown, of all models together
const rows = new Map(); // by table, strategy and model; made once, updated at each poll
const strips = new Map(); // by strategy and model, and for the process
let shape = "";
let events = "";

export function show({ memory, strategies }, now) {
  startAnewFor(strategies);
  showMemory(memory, strategies);
  for (const strategy of strategies) {
    writeGroup(strategy);
    for (const model of strategy.models) {
      writeModel(strategy, model, now);
      writeLatency(called(strategy), model);
    }
  }
  const asked = [...byId("latencies").tBodies[0].rows].some((row) => !row.hidden);
  [byId("latencies").hidden, byId("no-latencies").hidden] = [!asked, asked];
  showEvents(strategies, now);
}

// The nodes of a cluster have the same strategies.
const called = ({ name, node }) => (node ? `${name} on ${node}` : name);

// After a restart, the server may have other strategies and models.
function startAnewFor(strategies) {
  const key = strategies.flatMap((strategy) => [called(strategy), strategy.budget_bytes, ...strategy.models.map(({ model }) => model)]);
  if (key.join(" ") === shape) return;
  for (const body of [...byId("models").tBodies]) body.remove();
  byId("latencies").tBodies[0].replaceChildren();
  rows.clear();
  strips.clear();
  shape = key.join(" ");
}

function showMemory({ pss_bytes, private_bytes }, strategies) {
  write(byId("resident"), bytes(strategies.reduce((sum, { resident_bytes }) => sum + resident_bytes, 0)));
  write(byId("pss"), pss_bytes === null ? "n/a" : bytes(pss_bytes));
  write(byId("private"), private_bytes === null ? "n/a" : bytes(private_bytes));
  const points = remember("process", { low: pss_bytes, high: null, mark: false });
  byId("pss-strip").replaceChildren(strip(points, `PSS ${range(points)}`));
}

// Make a thing once for each `key`.
function once(key, make) {
  if (!rows.has(key)) rows.set(key, make());
  return rows.get(key);
}

// Add a row, and return its cells. A narrow screen shows the `name` of each cell beside it.
function addRow(body, heading, columns) {
  const cells = columns.map(([name, kind]) => element("td", { "data-name": name, class: kind, role: "cell" }));
  body.append(element("tr", { role: "row" }, element("th", { scope: "row", role: "rowheader" }, ...heading), ...cells));
  return cells;
}

function makeGroup(strategy, budget) {
  const [about, held] = [element("span", { class: "muted" }), element("span")];
  const used = budget && meter(`Memory of ${strategy} against its budget`);
  const words = element("span", { class: "about" }, element("strong", {}, strategy), about, held, used ?? "");
  const heading = element("th", { scope: "rowgroup", colspan: MODEL.length + 1, role: "rowheader" }, words);
  const body = element("tbody", { role: "rowgroup" }, element("tr", { class: "group", role: "row" }, heading));
  byId("models").append(body);
  return { body, about, held, used };
}

function writeGroup(strategy) {
  const { loader, options, budget_bytes, resident_bytes } = strategy;
  const { about, held, used } = once(called(strategy), () => makeGroup(called(strategy), budget_bytes));
  const said = Object.entries(options).filter(([key, value]) => value !== null && key !== "memory_budget");
  write(about, [loader, ...said.map(([key, value]) => `${key} ${[value].flat().join(", ") || "none"}`)].join(", "));
  write(held, budget_bytes ? `${bytes(resident_bytes)} of ${bytes(budget_bytes)}` : bytes(resident_bytes));
  if (used) writeMeter(used, resident_bytes, budget_bytes);
}

const MODEL = [
  ["Task", ""], ["State", ""], ["Memory", "number"], ["Since", ""], ["Last use", ""], ["Expires", ""],
  ["In use", ""], ["Evicted next", "why"], ["Manage", "act"],
];

function writeModel(strategy, model, now) {
  const { name, node } = strategy;
  const cells = once(`model ${called(strategy)} ${model.model}`, () => {
    const made = addRow(rows.get(called(strategy)).body, [model.model], MODEL);
    made.at(-1).append(element("button", { type: "button" }));
    return made;
  });
  const [task, state, memory, since, last, expires, use, next, act] = cells;
  write(task, model.engine ? "engine" : model.tasks?.join(", ") || "–");
  writeMarked(state, `state ${model.state}`, model.state);
  write(memory, bytes(model.bytes));
  writeMoment(since, model.since, now, ago);
  writeMoment(last, model.last_use, now, ago);
  writeMoment(expires, model.expires, now, ahead);
  const { in_use, waiting } = model;
  write(use, [in_use || [], waiting ? `${waiting} unanswered` : []].flat().join(", ") || "–");
  if (model.next_out) writeMarked(next, "badge", "next", model.why && ` ${model.why}`);
  else write(next, model.why || "–");
  const action = model.state === "absent" ? "load" : "unload";
  write(act.firstChild, action);
  act.firstChild.setAttribute("aria-label", `${action} ${model.model} under ${called(strategy)}`);
  Object.assign(act.firstChild.dataset, { strategy: name, model: model.model, action, ...(node && { node }) });
  for (const cell of cells) cell.classList.toggle("none", cell.textContent === "–");
}

function writeMarked(cell, kind, mark, rest = "") {
  if (cell.textContent !== mark + rest || !cell.firstElementChild) cell.replaceChildren(element("span", { class: kind }, mark), rest);
}

function writeMoment(cell, epoch, now, words) {
  if (epoch === null) return write(cell, "–");
  const time = moment(epoch, now, words);
  if (cell.textContent !== time.textContent) cell.replaceChildren(time);
}

const LATENCY = [
  ["Warm p50", "number"], ["Warm p95", "number"], ["Warm count", "number"],
  ["Cold p50", "number"], ["Cold p95", "number"], ["Cold count", "number"], ["Recent", "strip"],
];

function writeLatency(strategy, { model, latency_ms: { warm, cold } }) {
  const key = `${strategy} ${model}`;
  const before = strips.get(key)?.at(-1)?.count ?? cold.count;
  const points = remember(key, { low: warm.p50, high: warm.p95, count: cold.count, mark: cold.count > before });
  const cells = once(`latency ${key}`, () => addRow(byId("latencies").tBodies[0], named(strategy, model), LATENCY));
  const texts = [warm, cold].flatMap(({ p50, p95, count }) => [milliseconds(p50), milliseconds(p95), String(count)]);
  cells[0].parentNode.hidden = warm.count + cold.count === 0;
  texts.forEach((text, i) => write(cells[i], text));
  cells.at(-1).replaceChildren(strip(points, `${model} under ${strategy}, warm p50 ${range(points, milliseconds)}`));
}

const named = (strategy, model) => [element("span", { class: "name" }, strategy), " ", element("span", { class: "muted" }, model)];

function remember(key, point) {
  strips.set(key, [...(strips.get(key) ?? []), point].slice(-POLLS));
  return strips.get(key);
}

function range(points, words = bytes) {
  const known = points.flatMap(({ low }) => low ?? []);
  return known.length ? `from ${words(Math.min(...known))} to ${words(Math.max(...known))}` : "unknown";
}

const EVENT = [["Event", ""], ["Time", "number"], ["When", "number"]];

function showEvents(strategies, now) {
  const all = strategies.flatMap((strategy) =>
    strategy.models.flatMap(({ model, history }) => history.map((event) => ({ ...event, strategy: called(strategy), model }))),
  );
  const latest = all.sort((a, b) => b.at - a.at).slice(0, EVENTS);
  const body = byId("events").tBodies[0];
  byId("events").hidden = latest.length === 0;
  byId("no-events").hidden = latest.length > 0;
  const key = JSON.stringify(latest);
  if (key !== events) {
    body.replaceChildren();
    for (const event of latest) addEvent(body, event);
  }
  events = key;
  latest.forEach(({ at }, i) => writeMoment(body.rows[i].cells[3], at, now, ago));
}

function addEvent(body, { strategy, model, event, reason, seconds }) {
  const cells = addRow(body, named(strategy, model), EVENT);
  writeMarked(cells[0], `event ${event}`, event, ` ${reason}`);
  write(cells[1], `${event === "load" ? "in" : "after"} ${duration(seconds)}`);
}
