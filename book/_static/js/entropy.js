/* Entropy explorer: two entropies of DINO's teacher over a training, for recorded runs at several teacher temperatures,
   with and without centering. The page inlines the recorded curves as JSON. No library, no network.
   Without JavaScript the still picture inside the element stays. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const HEIGHT = 330, LEFT = 46, RIGHT = 16, TOP = 26, BOTTOM = 42;

  const HALO = { "font-size": 13, "font-weight": 600, "paint-order": "stroke", "stroke-width": 4,
    stroke: "var(--pst-color-background)" };

  function svg(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }

  function labelled(parent, text, input, output) {
    const label = document.createElement("label");
    label.append(text);
    if (output) label.append(output);
    label.append(input);
    parent.append(label);
    return input;
  }

  /* What an ending is called: the two collapses of the paper, or neither. */
  function ending(single, mean, top) {
    if (mean < 0.25 * top) return "(nearly) one output for every image";
    if (single > 0.9 * top) return "(nearly) the uniform answer for every image";
    return mean - single > 0.1 * top ? "different images get different answers" : "nearly the same answer for every image";
  }

  function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const WIDTH = root.clientWidth < 480 ? 380 : 640;  // letters keep their size on a phone
    const top = Math.log(data.k);
    const last = data.steps[data.steps.length - 1];
    const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / last;
    const y = (h) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * h) / (top * 1.04);
    const path = (values) => values.map((h, i) => `${i ? "L" : "M"}${x(data.steps[i]).toFixed(1)},${y(h).toFixed(1)}`).join("");

    root.replaceChildren();
    const title = document.createElement("h4");
    title.textContent = "Explore: what the teacher's temperature and its centre do";
    const controls = document.createElement("div");
    controls.className = "controls";
    const readout = document.createElement("p");
    readout.className = "readout";
    readout.setAttribute("aria-live", "polite");
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "Recorded trainings, one for each setting; the shaded gap is the information. The slider takes the arrow keys, the box the space bar. " +
      "The student's temperature is " + data.ts + " everywhere; from there on the teacher no longer sharpens.";
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    root.append(title, controls, picture, readout, hint);

    const output = document.createElement("output");
    const slider = Object.assign(document.createElement("input"),
      { type: "range", min: 0, max: data.tts.length - 1, step: 1, value: data.tts.indexOf(data.start) });
    labelled(controls, "Temperature of the teacher \u03c4\u209c: ", slider, output);
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    labelled(controls, "Centering ", box).classList.add("tick");

    for (const [h, name] of [[0, "one output"], [top, "uniform: ln " + data.k]]) {
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(h), y2: y(h), stroke: "var(--ssl-line)", "stroke-width": 1.5 }, picture);
      svg("text", { x: WIDTH - RIGHT, y: y(h) - 5, "font-size": 13, "text-anchor": "end" }, picture, name);
    }
    for (let h = 0; h <= top; h++) svg("text", { x: LEFT - 8, y: y(h) + 4, "font-size": 13, "text-anchor": "end" }, picture, h);
    for (let step = 0; step <= last; step += 50) {
      svg("text", { x: x(step), y: HEIGHT - BOTTOM + 18, "font-size": 13, "text-anchor": "middle" }, picture, step);
    }
    svg("text", { x: LEFT + (WIDTH - LEFT - RIGHT) / 2, y: HEIGHT - 6, "font-size": 13, "text-anchor": "middle" }, picture, "training step");
    svg("text", { x: 4, y: 14, "font-size": 13 }, picture, "entropy (nats)");
    const gap = svg("path", { fill: "var(--ssl-blue)", opacity: 0.16 }, picture);
    const lines = {
      mean: svg("path", { fill: "none", stroke: "var(--ssl-blue)", "stroke-width": 2.5, "stroke-dasharray": "7 4" }, picture),
      single: svg("path", { fill: "none", stroke: "var(--ssl-orange)", "stroke-width": 2.5 }, picture),
    };
    const names = {
      mean: svg("text", { ...HALO }, picture, "mean answer (dashed)"),
      single: svg("text", { ...HALO }, picture, "single answer"),
    };

    function draw() {
      const tt = data.tts[+slider.value];
      const { single, mean } = data.runs[box.checked ? "mean" : "none"][+slider.value];
      output.textContent = String(tt);
      slider.setAttribute("aria-valuetext", output.textContent);
      lines.single.setAttribute("d", path(single));
      lines.mean.setAttribute("d", path(mean));
      gap.setAttribute("d", path(mean) + single.map((_, i) => {
        const j = single.length - 1 - i;
        return `L${x(data.steps[j]).toFixed(1)},${y(single[j]).toFixed(1)}`;
      }).join("") + "Z");
      const at = Math.floor(data.steps.length / 2);
      names.mean.setAttribute("x", x(data.steps[at]));
      names.mean.setAttribute("y", Math.max(y(mean[at]) - 8, TOP + 12));
      names.single.setAttribute("x", x(data.steps[at]));
      names.single.setAttribute("y", Math.min(y(single[at]) + 18, HEIGHT - BOTTOM - 6));
      const [a, b] = [single[single.length - 1], mean[mean.length - 1]];
      readout.textContent = `\u03c4\u209c = ${tt}, ${box.checked ? "with" : "without"} centering: at the end a single answer has an ` +
        `entropy of ${a.toFixed(2)}, the mean answer ${b.toFixed(2)}; information ${(b - a).toFixed(2)} of ${top.toFixed(2)} nats: ` +
        ending(a, b, top) + ".";
      picture.setAttribute("aria-label", "Two curves over the training. " + readout.textContent);
    }
    slider.addEventListener("input", draw);
    box.addEventListener("change", draw);
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-entropy").forEach(build));
})();
