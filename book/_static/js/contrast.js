/* Contrast explorer: the 2N x 2N cosine similarities of one batch at saved steps of training, and what a temperature
   makes of them. The page inlines the similarities as JSON; the softmax is computed here. No library, no network.
   Without JavaScript the still picture inside the element stays. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";

  function svg(tag, attributes, parent) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.appendChild(node);
    return node;
  }

  /* Probability that anchor i picks j among all others: softmax of sim / tau over row i without its diagonal. */
  function softmaxRow(row, i, tau) {
    const top = Math.max(...row.filter((_, j) => j !== i)) / tau;
    const weights = row.map((s, j) => (j === i ? 0 : Math.exp(s / tau - top)));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((w) => w / total);
  }

  /* Dark blue (0) to yellow (1), even in lightness, so that it also reads in grey: a few stops of viridis. */
  const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  function colour(x) {
    const t = Math.min(Math.max(x, 0), 1) * (STOPS.length - 1);
    const k = Math.min(Math.floor(t), STOPS.length - 2);
    return "rgb(" + STOPS[k].map((c, m) => Math.round(c + (t - k) * (STOPS[k + 1][m] - c))).join(",") + ")";
  }

  function slider(parent, name, min, max, value, describe, redraw) {
    const label = document.createElement("label");
    label.append(name + ": ");
    const output = document.createElement("output");
    label.append(output);
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min, max, step: 1, value });
    const update = () => {
      output.textContent = describe(+input.value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { update(); redraw(); });
    label.append(input);
    parent.append(label);
    update();
    return input;
  }

  function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const size = data.sims[0].length;
    const half = size / 2;
    const positive = (i) => (i + half) % size;
    const name = (i) => "image " + ((i % half) + 1) + ", view " + (i < half ? 1 : 2);

    const taus = Array.from({ length: 41 }, (_, k) => 0.02 * Math.pow(100, k / 40));  // 0.02 to 2, evenly in the log
    const start = taus.findIndex((t) => t >= data.tau - 1e-9);
    root.replaceChildren();
    const title = document.createElement("h4");
    title.textContent = "Explore: one batch of " + half + " images, " + size + " views";
    const controls = document.createElement("div");
    controls.className = "controls";
    const panels = document.createElement("div");
    panels.className = "panels";
    const readout = document.createElement("p");
    readout.className = "readout";
    readout.setAttribute("aria-live", "polite");
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "Left: probability of each candidate (columns) for each anchor (rows); the positive of a row is " +
      "outlined in orange. Right: the chosen anchor's row. The sliders take the arrow keys; a click on a row chooses it.";
    root.append(title, controls, panels, readout, hint);

    const step = slider(controls, "Training step", 0, data.steps.length - 1, data.steps.length - 1,
      (k) => String(data.steps[k]), draw);
    const tau = slider(controls, "Temperature \u03c4", 0, taus.length - 1, start, (k) => taus[k].toFixed(3), draw);
    const anchor = slider(controls, "Anchor", 0, size - 1, 0, name, draw);

    const cell = 20;
    const map = svg("svg", { viewBox: `-1 -1 ${size * cell + 2} ${size * cell + 2}`, role: "img" }, panels);
    const cells = [];
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const box = svg("rect", { x: j * cell, y: i * cell, width: cell, height: cell }, map);
        box.addEventListener("click", () => { anchor.value = i; anchor.dispatchEvent(new Event("input")); });
        cells.push(box);
      }
    }
    for (let i = 0; i < size; i++) {
      svg("rect", { x: positive(i) * cell + 1.5, y: i * cell + 1.5, width: cell - 3, height: cell - 3, fill: "none",
        stroke: "var(--ssl-orange)", "stroke-width": 3, "pointer-events": "none" }, map);
    }
    const frame = svg("rect", { x: 0, width: size * cell, height: cell, fill: "none",
      stroke: "var(--pst-color-text-base)", "stroke-width": 2.5, "pointer-events": "none" }, map);

    const bars = svg("svg", { viewBox: `0 0 ${size * cell} ${size * cell}`, role: "img" }, panels);

    function draw() {
      const sims = data.sims[+step.value];
      const t = taus[+tau.value];
      const chosen = +anchor.value;
      const rows = sims.map((row, i) => softmaxRow(row, i, t));
      rows.forEach((row, i) => row.forEach((p, j) => {
        cells[i * size + j].setAttribute("fill", i === j ? "var(--pst-color-surface)" : colour(Math.sqrt(p)));
      }));
      frame.setAttribute("y", chosen * cell);

      const row = rows[chosen];
      bars.replaceChildren();
      const height = size * cell - 58;
      const top = Math.max(...row);
      row.forEach((p, j) => {
        const length = (height * p) / top;
        svg("rect", { x: j * cell + 2, y: 28 + height - length, width: cell - 4, height: Math.max(length, 0.6),
          fill: j === positive(chosen) ? "var(--ssl-orange)" : "var(--ssl-blue)" }, bars);
      });
      svg("line", { x1: 0, x2: size * cell, y1: 28.5 + height, y2: 28.5 + height, stroke: "currentColor" }, bars);
      svg("text", { x: 0, y: 16, "font-size": 14 }, bars).textContent =
        "anchor: " + name(chosen) + "; tallest bar " + top.toFixed(3);
      svg("text", { x: 0, y: height + 48, "font-size": 14 }, bars).textContent = "candidates; orange: the positive";

      const loss = rows.reduce((sum, r, i) => sum - Math.log(r[positive(i)]), 0) / size;
      const hits = rows.filter((r, i) => r[positive(i)] === Math.max(...r)).length;
      const negatives = rows.map((r, i) => {
        const rest = r.map((p, j) => (j === positive(i) ? 0 : p));
        const total = rest.reduce((a, b) => a + b, 0);
        return Math.exp(-rest.reduce((sum, p) => (p > 0 ? sum + (p / total) * Math.log(p / total) : sum), 0));
      }).reduce((a, b) => a + b, 0) / size;
      readout.textContent = `Step ${data.steps[+step.value]}, \u03c4 = ${t.toFixed(3)}: loss ${loss.toFixed(3)} ` +
        `(blind guess: ${Math.log(size - 1).toFixed(3)}); ${hits} of ${size} anchors pick their positive; ` +
        `effective negatives per anchor ${negatives.toFixed(1)} of ${size - 2}.`;
      map.setAttribute("aria-label", "Heat map of softmax probabilities. " + readout.textContent);
      bars.setAttribute("aria-label", `Probabilities for ${name(chosen)}: its positive has ` +
        row[positive(chosen)].toFixed(3) + ", the strongest candidate has " + top.toFixed(3) + ".");
    }
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-contrast").forEach(build));
})();
