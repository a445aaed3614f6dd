/* Zero-shot playground: scenes, class names and prompt templates of the small CLIP, embedded beforehand. Class weights
   (normalise, average over the chosen templates, normalise again) and cosines are computed here from the embeddings that
   the page inlines. No library, no network. Without JavaScript the still picture inside the element stays. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const SHOWN = 6, ROW = 27, THUMB = 44;
  let serial = 0;

  function svg(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }

  function html(tag, properties, parent) {
    const node = Object.assign(document.createElement(tag), properties);
    if (parent) parent.append(node);
    return node;
  }

  /* Rows of unit length from base64 of signed bytes. */
  function unpack(text, dim) {
    const bytes = Int8Array.from(atob(text), (c) => c.charCodeAt(0));
    const rows = [];
    for (let at = 0; at < bytes.length; at += dim) rows.push(unit(Array.from(bytes.subarray(at, at + dim))));
    return rows;
  }
  const unit = (v) => { const n = Math.hypot(...v) || 1; return v.map((x) => x / n); };
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const signed = (x) => (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(3);
  const article = (name) => (/^[aeiou]/.test(name) ? "an " : "a ") + name;

  function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const img = unpack(data.img, data.dim), txt = unpack(data.txt, data.dim);
    const T = data.templates.length, n = data.labels.length;
    const chosen = data.templates.map((_, t) => t === 0);
    let at = data.start || 0;

    root.replaceChildren();
    html("h4", { textContent: "Explore: prompts make the classifier" }, root);
    const group = html("fieldset", { className: "templates" }, root);
    html("legend", { textContent: "Templates to average over" }, group);
    data.templates.forEach((template, t) => {
      const label = html("label", {}, group);
      const box = html("input", { type: "checkbox", checked: chosen[t] }, label);
      html("span", { textContent: template.replace("{}", "\u2026") }, label);
      box.addEventListener("change", () => {
        chosen[t] = box.checked;
        if (!chosen.some(Boolean)) { chosen[t] = box.checked = true; }
        draw();
      });
    });
    const scenes = html("fieldset", { className: "scenes" }, root);
    html("legend", { textContent: "Scene (a dot: taken for something else)" }, scenes);
    const name = "ssl-words-" + serial++;
    const tiles = data.labels.map((label, i) => {
      const tile = html("label", {}, scenes);
      const radio = html("input", { type: "radio", name, checked: i === at }, tile);
      const picture = html("span", { className: "picture" }, tile);
      Object.assign(picture.style, {
        width: THUMB + "px", height: THUMB + "px", backgroundImage: `url(${data.sheet})`,
        backgroundSize: `${n * THUMB}px ${THUMB}px`, backgroundPosition: `${-i * THUMB}px 0`,
      });
      radio.addEventListener("change", () => { at = i; draw(); });
      return { radio, picture };
    });
    const readout = html("p", { className: "readout" }, root);
    readout.setAttribute("aria-live", "polite");
    const panels = html("div", { className: "panels" }, root);
    const left = html("div", {}, panels), right = html("div", {}, panels);
    html("p", { className: "heading", textContent: "Chosen scene: its nearest names" }, left);
    html("p", { className: "heading", textContent: "All scenes: margin of the true name" }, right);
    const bars = svg("svg", { viewBox: `0 0 360 ${SHOWN * ROW + 8}`, role: "img" }, left);
    const strip = svg("svg", { viewBox: "0 0 360 170", role: "img" }, right);
    const total = html("p", { className: "readout" }, root);
    total.setAttribute("aria-live", "polite");
    html("p", { className: "hint", textContent:
      "Everything is computed here, from embeddings that were stored in the page. Tab moves between templates and scenes, the space " +
      "bar ticks a template, the arrow keys walk through the scenes. The margin is the cosine of the true name minus the best other." }, root);

    /* The classifier of the chosen templates: one unit vector a class. */
    function weights() {
      return data.classes.map((_, c) => {
        const sum = new Array(data.dim).fill(0);
        chosen.forEach((on, t) => { if (on) txt[c * T + t].forEach((x, k) => { sum[k] += x; }); });
        return unit(sum);
      });
    }

    function margins(cosines) {
      return cosines.map((row, i) => row[data.labels[i]] - Math.max(...row.filter((_, c) => c !== data.labels[i])));
    }

    function drawBars(row) {
      bars.replaceChildren();
      const own = data.labels[at];
      const order = row.map((_, c) => c).sort((a, b) => row[b] - row[a]).slice(0, SHOWN);
      if (!order.includes(own)) order[SHOWN - 1] = own;
      const low = Math.min(0, ...order.map((c) => row[c]));
      const x = (v) => 116 + (196 * (v - low)) / (1 - low);
      order.forEach((c, k) => {
        const y = 4 + k * ROW;
        svg("rect", { x: x(Math.min(0, row[c])), y: y + 3, width: Math.max(1, x(Math.max(0, row[c])) - x(Math.min(0, row[c]))),
          height: ROW - 8, fill: c === own ? "var(--ssl-orange)" : "var(--ssl-blue)" }, bars);
        svg("text", { x: 108, y: y + 17, "font-size": 13, "text-anchor": "end", "font-weight": c === own ? 700 : 400 }, bars, data.classes[c]);
        svg("text", { x: x(Math.max(0, row[c])) + 5, y: y + 17, "font-size": 13 }, bars, row[c].toFixed(2));
      });
      bars.setAttribute("aria-label", "Cosines: " + order.map((c) => `${data.classes[c]} ${row[c].toFixed(2)}`).join(", "));
    }

    function drawStrip(all) {
      strip.replaceChildren();
      const reach = 0.25;
      const y = (m) => 80 - (70 * Math.max(-reach, Math.min(reach, m))) / reach;
      const step = 320 / n;
      svg("line", { x1: 34, x2: 356, y1: y(0), y2: y(0), stroke: "var(--ssl-line)", "stroke-width": 1.5 }, strip);
      for (const v of [-0.2, 0, 0.2]) {
        svg("text", { x: 30, y: y(v) + 4, "font-size": 12, "text-anchor": "end" }, strip, v === 0 ? "0" : (v < 0 ? "\u2212" : "+") + "0.2");
      }
      all.forEach((m, i) => {
        const x = 36 + i * step;
        svg("rect", { x, width: step * 0.75, y: Math.min(y(0), y(m)), height: Math.max(1, Math.abs(y(m) - y(0))),
          fill: m > 0 ? "var(--ssl-blue)" : "var(--ssl-bad)" }, strip);
        if (i === at) svg("path", { d: `M${x + step * 0.37},153l-6,10h12Z`, fill: "var(--ssl-orange)" }, strip);
      });
      strip.setAttribute("aria-label", `Margins of ${n} scenes, ${all.filter((m) => m > 0).length} above zero`);
    }

    function draw() {
      const w = weights();
      const cosines = img.map((z) => w.map((v) => dot(z, v)));
      const all = margins(cosines);
      const own = data.labels[at];
      const best = cosines[at].indexOf(Math.max(...cosines[at]));
      tiles.forEach(({ radio, picture }, i) => {
        picture.classList.toggle("missed", all[i] <= 0);
        radio.setAttribute("aria-label", `Scene ${i + 1}, ${article(data.classes[data.labels[i]])}, ${all[i] > 0 ? "recognised" : "taken for something else"}`);
      });
      drawBars(cosines[at]);
      drawStrip(all);
      readout.textContent = `Scene ${at + 1} shows ${article(data.classes[own])} and is taken for ` +
        (best === own ? "one" : article(data.classes[best])) + `: margin ${signed(all[at])}.`;
      const used = chosen.filter(Boolean).length;
      total.textContent = `${used} template${used > 1 ? "s" : ""}: ${all.filter((m) => m > 0).length} of ${n} scenes recognised, ` +
        `mean margin ${signed(all.reduce((a, b) => a + b, 0) / n)}.`;
    }
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-words").forEach(build));
})();
