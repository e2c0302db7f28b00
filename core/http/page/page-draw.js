// Figures as inline SVG: bars of the parts of an answer's time, and strips of polled values.

import { svg } from "./page-dom.js";

const SHORTEST = 30; // values that a strip has room for
const SHADES = 4; // of the colour that phases of a load share

// "queue;dur=0.1, load;dur=40, load-weights;dur=30, inference;dur=7" and the time that the browser saw, as parts
// that follow each other: [{name, ms, kind}].
export function partsOf(header, total) {
  const timing = new Map();
  for (const [, name, ms] of (header ?? "").matchAll(/([^\s,;]+);dur=([\d.]+)/g)) timing.set(name, Number(ms));
  const of = (name) => timing.get(name) ?? 0;
  const phases = [...timing].filter(([name]) => name.startsWith("load-"));
  const rest = Math.max(0, of("load") - phases.reduce((sum, [, ms]) => sum + ms, 0));
  const load = phases.map(([name, ms], i) => ({ name: name.slice(5), ms, kind: `load-${i % SHADES}` }));
  if (of("load") > 0) load.push({ name: phases.length ? "rest of load" : "load", ms: rest, kind: "load-rest" });
  const server = of("queue") + of("load") + of("inference");
  return [
    { name: "queue", ms: of("queue"), kind: "queue" },
    ...load,
    { name: "inference", ms: of("inference"), kind: "inference" },
    { name: "HTTP and rest", ms: Math.max(0, total - server), kind: "rest" },
  ];
}

// A bar; `scale` is its full width in milliseconds. The legend beside it has the same in numbers.
export function bar(parts, scale) {
  let begin = 0;
  const rects = parts.map(({ ms, kind }) => {
    const rect = svg("rect", { x: `${begin}%`, width: `${(100 * ms) / scale}%`, height: "100%", class: kind });
    begin += (100 * ms) / scale;
    return rect;
  });
  return svg("svg", { class: "bar", "aria-hidden": "true" }, ...rects);
}

export function meter(label) {
  return svg("svg", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0 }, svg("rect", { height: "100%" }));
}

export function writeMeter(node, value, most) {
  node.setAttribute("aria-valuenow", value);
  node.setAttribute("aria-valuemax", most);
  node.firstChild.setAttribute("width", `${Math.min(100, (100 * value) / most)}%`);
}

export const swatch = (kind) =>
  svg("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { width: 10, height: 10, class: kind }));

// Polled values on an axis from zero, newest at the right: a line at `low`, a band up to `high`, a stroke at `mark`.
export function strip(points, label) {
  const length = Math.max(points.length, SHORTEST);
  const top = Math.max(...points.map(({ low, high }) => high ?? low ?? 0)) || 1;
  const x = (i) => length - points.length + i + 0.5;
  const y = (value) => 23 - (21 * value) / top;
  const known = points.map((point, i) => ({ ...point, i })).filter(({ low }) => low !== null);
  const path = (list, value) => list.map((point) => `${x(point.i)},${y(value(point)).toFixed(2)}`).join(" ");
  const high = ({ low, high }) => high ?? low;
  return svg(
    "svg",
    { class: "strip", viewBox: `0 0 ${length} 24`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("polygon", { points: `${path(known, high)} ${path(known.toReversed(), ({ low }) => low)}` }),
    svg("polyline", { points: path(known, ({ low }) => low) }),
    ...points.flatMap(({ mark }, i) => (mark ? [svg("line", { x1: x(i), x2: x(i), y1: 0, y2: 24 })] : [])),
  );
}
