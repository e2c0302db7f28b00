// Elements and formats of figures. Text becomes text nodes only, never markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Unchanged text is left alone, so that a poll does not disturb selection, focus or a screen reader.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function options(select, values) {
  if ([...select.options].map((option) => option.value).join("\n") === values.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => element("option", { value }, value)));
  if (values.includes(chosen)) select.value = chosen;
}

export function bytes(count) {
  if (count === null) return "–";
  if (count === 0) return "0 MiB";
  const mib = count / 2 ** 20;
  return mib < 1024 ? `${mib.toFixed(mib < 100 ? 1 : 0)} MiB` : `${(mib / 1024).toFixed(2)} GiB`;
}

export function milliseconds(ms) {
  if (ms === null) return "–";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms.toFixed(ms < 9.995 ? 2 : ms < 99.95 ? 1 : 0)} ms`;
}

export function duration(seconds) {
  if (seconds < 1) return milliseconds(seconds * 1000);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

export const ago = (seconds) => (seconds < 1 ? "now" : `${span(seconds)} ago`);
export const ahead = (seconds) => (seconds < 1 ? "now" : `in ${span(seconds)}`);

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

// A time relative to now, with the date as a tooltip.
export function moment(epoch, now, words) {
  const date = new Date(epoch * 1000);
  return element("time", { datetime: date.toISOString(), title: date.toLocaleString() }, words(Math.abs(now - epoch)));
}

// The sentence of an error: the problem's detail, if the server sent one (RFC 9457).
export async function sentence(response) {
  const problem = await response.json().catch(() => ({}));
  const detail = typeof problem.detail === "string" ? problem.detail : `The server answered ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  return wait ? `${detail} Try again in ${wait} s.` : detail;
}

export const SILENCE = "The server does not answer.";
