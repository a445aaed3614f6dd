/* The data engine as a film: rounds of annotating three scenes, click by click, recorded by benchmarks/findings/engine_film.py.
   Nothing moves before a reader asks for it; where motion is not wanted there are steps only. No library, no network.
   Without JavaScript the still picture stays. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const PAUSE = 700; // milliseconds between two steps
  const COLOUR = [255, 160, 0];

  function svg(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  function element(tag, properties, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  /* Run lengths, column by column, zeros first. */
  function paint(canvas, counts, size) {
    const context = canvas.getContext("2d"), picture = context.createImageData(size, size);
    let at = 0;
    (counts || []).forEach((length, run) => {
      for (const end = at + length; at < end; at++) {
        if (run % 2) picture.data.set([...COLOUR, 140], 4 * ((at % size) * size + Math.floor(at / size)));
      }
    });
    context.putImageData(picture, 0, 0);
  }

  /* What happens, in order: every click of every scene of a round, then the end of the round. */
  function script(data) {
    return data.rounds.flatMap((round, r) => [
      ...round.scenes.flatMap((frames, s) => (frames.length ? frames.map((_, f) => ({ r, s, f })) : [{ r, s, f: -1 }])),
      { r, end: true },
    ]);
  }

  function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const { size, annotator } = data, steps = script(data);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let at = -1, timer = 0;

    const scenes = data.pictures.map((picture, i) => {
      const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
      const marks = svg("svg", { viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" });
      const note = element("p", { className: "note" });
      const photo = Object.assign(new Image(), { src: picture, alt: `A sketch with an object to annotate, scene ${i + 1} of 3` });
      return { canvas, marks, note, box: element("div", {}, element("div", { className: "frame" }, photo, canvas, marks), note) };
    });
    const films = element("div", { className: "films" }, ...scenes.map((scene) => scene.box));
    const stacked = root.clientWidth < 480; // letters keep their size on a phone
    const chart = svg("svg", { viewBox: stacked ? "0 0 320 340" : "0 0 640 170", role: "img", class: "chart" });
    const readout = element("p", { className: "readout" });
    readout.setAttribute("aria-live", "polite");
    const hint = element("p", { className: "hint", textContent:
      `A recorded run. The assumed annotator takes ${annotator.object} s to turn to an object and ${annotator.click} s a click, and stops at an IoU ` +
      `of ${annotator.good} or after ${annotator.patience} clicks. The three scenes are shown to every round's model and never trained on; the bars count ` +
      "each round's own scenes. Pale: the same round with a model that is never retrained." });
    const button = (label, act) => {
      const made = element("button", { type: "button", textContent: label });
      made.addEventListener("click", act);
      return made;
    };
    const play = button("Play", () => (timer ? stop() : start()));
    const next = button("Step", () => (stop(), go(at + 1)));
    const round = button("Next round", () => (stop(), go(steps.findIndex((step, i) => i > at && step.end))));
    const again = button("Start again", () => (stop(), go(-1)));
    const buttons = element("div", { className: "buttons" }, ...(still ? [] : [play]), next, round, again);
    root.replaceChildren(element("h4", { textContent: "The engine at work" }), buttons, films, chart, readout, hint);

    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    }
    function start() {
      if (at >= steps.length - 1) go(-1);
      play.textContent = "Pause";
      go(at + 1);
      timer = setInterval(() => (at >= steps.length - 1 ? stop() : go(at + 1)), PAUSE);
    }

    function drawScene(scene, frames, f, skipped) {
      scene.marks.replaceChildren();
      paint(scene.canvas, f >= 0 ? frames[f].counts : null, size);
      for (const { click } of frames.slice(0, f + 1)) {
        if (!click) continue;
        const [x, y, label] = click;
        svg("circle", { cx: x + 0.5, cy: y + 0.5, r: 5, fill: label ? "#0b6e2e" : "#b3261e", stroke: "#fff", "stroke-width": 1 }, scene.marks);
        svg("path", { d: `M${x - 2} ${y + 0.5}h5` + (label ? `M${x + 0.5} ${y - 2}v5` : ""), stroke: "#fff", "stroke-width": 1.4 }, scene.marks);
      }
      const clicks = frames.slice(0, f + 1).filter((one) => one.click).length;
      scene.note.textContent = skipped ? "skipped: the model is not sure" : f < 0 ? "waiting"
        : `${clicks ? `${clicks} click${clicks > 1 ? "s" : ""}` : "no click"}, IoU ${frames[f].iou.toFixed(2)}`;
    }

    /* Two rows of bars, one group a round that has ended. */
    function drawChart(ended) {
      chart.replaceChildren();
      const rows = [["seconds an object", (one) => one.seconds, 13], ["IoU of the masks \u00d7 share with a mask", (one) => one.iou * one.masks, 1]];
      rows.forEach(([name, value, most], k) => {
        const left = stacked ? 8 : 8 + k * 326, base = 140 + (stacked ? 170 * k : 0), high = 100;
        svg("text", { x: left, y: base - 124, "font-size": 14 }, chart, name);
        svg("line", { x1: left, x2: left + 300, y1: base, y2: base, stroke: "var(--ssl-line)" }, chart);
        data.rounds.forEach((one, i) => {
          const x = left + 6 + i * 60;
          svg("text", { x: x + 22, y: base + 18, "font-size": 13, "text-anchor": "middle" }, chart, i + 1);
          if (i >= ended) return;
          [[one, "var(--ssl-blue)", 1], [one.alone, "var(--ssl-blue)", 0.35]].forEach(([arm, fill, opacity], j) => {
            const height = Math.max(1, (high * value(arm)) / most);
            svg("rect", { x: x + 23 * j, y: base - height, width: 21, height, fill, opacity }, chart);
          });
          svg("text", { x: x + 10, y: base - (high * value(one)) / most - 5, "font-size": 12, "text-anchor": "middle" }, chart,
            value(one).toFixed(k ? 2 : 1));
        });
      });
      const said = data.rounds.slice(0, ended).map((one) => `round ${one.name}: ${one.seconds.toFixed(1)} s an object, IoU ${one.iou.toFixed(2)}`);
      chart.setAttribute("aria-label", said.length ? said.join("; ") : "Bars appear when a round ends.");
    }

    function go(to) {
      at = Math.min(to, steps.length - 1);
      const step = at < 0 ? { r: 0, s: -1, f: -1 } : steps[at], now = data.rounds[step.r];
      scenes.forEach((scene, i) => {
        const frames = now.scenes[i], done = step.end || i < step.s;
        const f = done ? frames.length - 1 : i === step.s ? step.f : -1;
        drawScene(scene, frames, f, !frames.length && (done || i === step.s));
      });
      drawChart(step.end ? step.r + 1 : step.r);
      const last = step.r === data.rounds.length - 1;
      readout.textContent = at < 0 ? "Press Step, Next round" + (still ? "." : ", or Play.")
        : step.end ? `Round ${now.name} ended: ${now.seconds.toFixed(1)} s an object, ${Math.round(100 * now.masks)} % of the objects have a mask, ` +
          `IoU ${now.iou.toFixed(2)}. ` + (last ? "That was the last round." : "Now the model is trained on all masks so far.")
        : `Round ${now.name}, scene ${step.s + 1}.`;
      next.disabled = round.disabled = at >= steps.length - 1;
    }
    go(-1);
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-engine").forEach(build));
})();
