/* Twelve points on a circle, six images with two views each: where InfoNCE pushes each of them, by temperature. Points are
   moved with the mouse, a finger or the arrow keys. Loss and gradient are computed here. No library, no network.
   Without JavaScript the still picture inside the element stays. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const R = 100;          // radius of the circle in units of the drawing
  const LONGEST = 42;     // length of the longest arrow

  function svg(tag, attributes, parent) {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.appendChild(node);
    return node;
  }

  function html(tag, properties, parent) {
    const node = Object.assign(document.createElement(tag), properties);
    parent.append(node);
    return node;
  }

  /* InfoNCE of first views (queries) against second views (keys): probabilities p[i][j], loss, and -dL/dangle. */
  function infoNCE(angles, tau) {
    const n = angles.length / 2;
    const push = angles.map(() => 0);
    const p = [];
    let loss = 0;
    for (let i = 0; i < n; i++) {
      const logits = Array.from({ length: n }, (_, j) => Math.cos(angles[i] - angles[n + j]) / tau);
      const top = Math.max(...logits);
      const total = logits.reduce((sum, x) => sum + Math.exp(x - top), 0);
      p.push(logits.map((x) => Math.exp(x - top) / total));
      loss += (Math.log(total) + top - logits[i]) / n;
      for (let j = 0; j < n; j++) {
        const weight = (p[i][j] - (i === j ? 1 : 0)) / (n * tau);   // dL / d similarity
        const slope = -Math.sin(angles[i] - angles[n + j]);         // d similarity / d angle of the query
        push[i] -= weight * slope;
        push[n + j] += weight * slope;
      }
    }
    return { p, push, loss };
  }

  function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const n = data.angles.length / 2;
    let angles = data.angles.slice();
    let chosen = 0;
    const name = (i) => "image " + ((i % n) + 1) + ", view " + (i < n ? 1 : 2);
    const taus = Array.from({ length: 36 }, (_, k) => 0.02 * Math.pow(50, k / 35));   // 0.02 to 1, evenly in the log
    root.replaceChildren();
    html("h4", { textContent: "Explore: which negatives does InfoNCE push?" }, root);

    const controls = html("div", { className: "controls" }, root);
    const label = html("label", { textContent: "Temperature \u03c4: " }, controls);
    const output = html("output", {}, label);
    const slider = html("input", { type: "range", min: 0, max: taus.length - 1, step: 1, value: 20 }, label);
    const buttons = html("div", { className: "buttons" }, controls);
    const follow = html("button", { type: "button", textContent: "Follow the arrows" }, buttons);
    const reset = html("button", { type: "button", textContent: "Start again" }, buttons);

    const picture = svg("svg", { viewBox: "-160 -150 320 300", role: "group",
      "aria-label": "Twelve points on a circle, with an arrow each. Points are sliders: choose one with Tab, move it with the arrow keys." }, root);
    const defs = svg("defs", {}, picture);
    const marker = svg("marker", { id: "ssl-circle-head", viewBox: "0 0 8 8", refX: 5, refY: 4, markerWidth: 3.4, markerHeight: 3.4, orient: "auto" }, defs);
    svg("path", { d: "M0 0 L8 4 L0 8 z", class: "head" }, marker);
    svg("circle", { r: R, class: "track" }, picture);
    const lines = Array.from({ length: n }, () => svg("line", { class: "look" }, picture));
    const arrows = angles.map(() => svg("line", { class: "arrow", "marker-end": "url(#ssl-circle-head)" }, picture));
    const points = angles.map((_, i) => {
      const group = svg("g", { class: i < n ? "point first" : "point second", tabindex: 0, role: "slider",
        "aria-valuemin": 0, "aria-valuemax": 359, "aria-label": name(i) }, picture);
      svg("circle", { r: 17, class: "reach" }, group);
      if (i < n) svg("circle", { r: 9, class: "body" }, group);
      else svg("rect", { x: -8.5, y: -8.5, width: 17, height: 17, class: "body" }, group);
      svg("text", { y: 4, "text-anchor": "middle" }, group).textContent = (i % n) + 1;
      group.addEventListener("focus", () => { choose(i); });
      group.addEventListener("pointerdown", (event) => { group.setPointerCapture(event.pointerId); group.focus(); event.preventDefault(); });
      group.addEventListener("pointermove", (event) => {
        if (!group.hasPointerCapture(event.pointerId)) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
        angles[i] = Math.atan2(-at.y, at.x);
        draw();
      });
      group.addEventListener("keydown", (event) => {
        const turn = { ArrowLeft: 1, ArrowUp: 1, ArrowRight: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
        if (!turn) return;
        event.preventDefault();
        angles[i] += (turn * 3 * Math.PI) / 180;
        draw();
      });
      return group;
    });
    const readout = html("p", { className: "readout" }, root);
    readout.setAttribute("aria-live", "polite");
    html("p", { className: "hint", textContent: "Discs are first views (queries), squares second views (keys); equal numbers are one image. " +
      "Arrows: \u2212\u2202L/\u2202z, scaled to the longest one. Blue lines: how much of its attention the chosen image's " +
      "first view gives to each key. Drag a point, or choose it with Tab and use the arrow keys." }, root);

    function choose(i) { chosen = i; draw(); }

    function draw() {
      const tau = taus[+slider.value];
      output.textContent = tau.toFixed(3);
      slider.setAttribute("aria-valuetext", output.textContent);
      const { p, push, loss } = infoNCE(angles, tau);
      const most = Math.max(...push.map(Math.abs), 1e-9);
      angles.forEach((angle, i) => {
        const [x, y] = [R * Math.cos(angle), -R * Math.sin(angle)];
        points[i].setAttribute("transform", `translate(${x} ${y})`);
        points[i].classList.toggle("chosen", i === chosen);
        const degrees = ((Math.round((angle * 180) / Math.PI) % 360) + 360) % 360;
        points[i].setAttribute("aria-valuenow", degrees);
        points[i].setAttribute("aria-valuetext", `${degrees} degrees, push ${push[i].toFixed(2)}`);
        const length = (LONGEST * push[i]) / Math.max(most, 0.02);   // when all is calm, arrows are short, too
        arrows[i].setAttribute("visibility", Math.abs(length) < 2.5 ? "hidden" : "visible");
        const [out, tangentX, tangentY] = [1.17, -Math.sin(angle), -Math.cos(angle)];
        Object.entries({ x1: x * out, y1: y * out, x2: x * out + length * tangentX, y2: y * out + length * tangentY })
          .forEach(([key, value]) => arrows[i].setAttribute(key, value));
      });
      const query = chosen % n;
      lines.forEach((line, j) => {
        const ends = { x1: angles[query], x2: angles[n + j] };
        line.setAttribute("x1", R * Math.cos(ends.x1));
        line.setAttribute("y1", -R * Math.sin(ends.x1));
        line.setAttribute("x2", R * Math.cos(ends.x2));
        line.setAttribute("y2", -R * Math.sin(ends.x2));
        line.setAttribute("stroke-width", 9 * p[query][j]);
      });
      const negatives = p[query].filter((_, j) => j !== query);
      const mass = negatives.reduce((a, b) => a + b, 0);
      const effective = Math.exp(-negatives.reduce((sum, w) => (w > 0 ? sum + (w / mass) * Math.log(w / mass) : sum), 0));
      readout.textContent = `\u03c4 = ${tau.toFixed(3)}: loss ${loss.toFixed(3)} (blind guess ${Math.log(n).toFixed(3)}); longest arrow ` +
        `${most.toFixed(2)}. Image ${query + 1}: ${effective.toFixed(1)} of ${n - 1} negatives count, the nearest gets ` +
        `${(100 * Math.max(...negatives) / mass).toFixed(0)} % of the push.`;
    }

    /* Forty small steps; a step is as long as the longest arrow asks, so that every temperature moves at one speed. */
    function walk(left) {
      const { push } = infoNCE(angles, taus[+slider.value]);
      const most = Math.max(...push.map(Math.abs));
      if (left === 0 || most < 1e-4) return;
      angles = angles.map((angle, i) => angle + (0.05 * Math.min(1, 4 * most) * push[i]) / most);
      draw();
      if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) walk(left - 1);
      else requestAnimationFrame(() => walk(left - 1));
    }

    slider.addEventListener("input", draw);
    follow.addEventListener("click", () => walk(60));
    reset.addEventListener("click", () => { angles = data.angles.slice(); draw(); });
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-circle").forEach(build));
})();
