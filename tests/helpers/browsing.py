"""What tests that look at a page in a real browser share."""

from __future__ import annotations

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

# For each element that shows text itself: what it says, and its contrast with the ground behind it (WCAG 2).
CONTRASTS = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [0, 0, 0];
  };
  const shows = (node) => node.checkVisibility() && (node.matches("input, select")
    || [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  return [...document.body.querySelectorAll("*")].filter(shows).map((node) => {
    const color = getComputedStyle(node)[node.localName === "text" ? "fill" : "color"];
    const [text, behind] = [rgb(color), ground(node)].map(luminance);
    const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
    return [node.textContent.trim() || node.id, ratio];
  });
}"""
