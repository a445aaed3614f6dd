// Run inside a page by tests/browser.py.

// Text whose contrast with its ground is below WCAG AA (4.5, large text 3): [ratio, colour, ground, element, text].
// Skipped: what is hidden or disabled, and text over pictures or gradients, whose ground is not one colour.
function lowContrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = "#000";
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
  const luminance = (colour) => {
    const linear = colour.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") return null;
      const colour = rgba(style.backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((below, colour) => over(colour, below), [255, 255, 255, 1]);
  };

  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const text = node.textContent.trim();
    if (!text || element.closest("script, style, noscript, mjx-container, [disabled], .visually-hidden, .sr-only")) continue;
    if (!element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    const below = ground(element);
    if (!below) continue;
    const style = getComputedStyle(element);
    const colour = over(rgba(element.closest("svg") ? style.fill : style.color), below);
    const [high, low] = [luminance(colour), luminance(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const px = parseFloat(style.fontSize);
    const large = px >= 24 || (px >= 18.66 && style.fontWeight >= 700);
    if (ratio >= (large ? 3 : 4.5)) continue;
    const name = element.tagName.toLowerCase() + "." + (element.getAttribute("class") || "");
    const row = [ratio.toFixed(2), style.color, below.slice(0, 3).map(Math.round).join(), name];
    if (!found.has(row.join())) found.set(row.join(), [...row, text.slice(0, 40)]);
  }
  return [...found.values()];
}

// What makes the page scroll sideways; empty when it does not.
function tooWide() {
  const width = document.documentElement.clientWidth;
  const needed = document.documentElement.scrollWidth;
  if (needed <= width + 1) return [];
  const out = [...document.querySelectorAll("body *")].filter(
    (e) => e.checkVisibility() && e.getBoundingClientRect().right > width + 1,
  );
  return [`${needed} px wide`, ...out.slice(0, 5).map((e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""}`)];
}
