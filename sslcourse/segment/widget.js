// The browser's half of ClickToSegment: it draws what the model's half says and reports clicks and boxes. Two attributes
// of the stage keep JupyterLab's own menu and shortcuts away: a right click excludes, and C is no "copy cell".
const DRAG = 4; // pixels on the screen that tell a drag from a click

function render({ model, el }) {
  el.innerHTML = `
    <div class="ssl-segment">
      <div class="stage" tabindex="0" data-lm-suppress-shortcuts="true" data-jp-suppress-context-menu role="application" aria-label="Image to segment. Arrow keys move the cross,
        I includes the place, E excludes it, U undoes, C clears, 1 to 3 choose a mask.">
        <img class="picture" alt="the image to segment" draggable="false">
        <img class="layer" alt="" draggable="false">
        <svg aria-hidden="true"></svg>
      </div>
      <div class="masks" role="radiogroup" aria-label="masks by predicted IoU"></div>
      <div class="buttons">
        <button class="undo" type="button">Undo</button> <button class="clear" type="button">Clear</button>
        <span class="help">left click: include · right click: exclude · drag: box</span>
      </div>
      <div class="message" role="status" aria-live="polite"></div>
    </div>`;
  const [stage, layer, svg, masks] = [".stage", ".layer", "svg", ".masks"].map((q) => el.querySelector(q));
  const [width, height] = model.get("size");
  let cross = [width / 2, height / 2];
  let start = null;
  let dragged = null;
  el.querySelector(".picture").src = model.get("picture");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  stage.style.aspectRatio = `${width} / ${height}`;

  const place = (event) => {
    const box = stage.getBoundingClientRect();
    const inside = (value, low, length, most) => Math.min(most - 1, Math.max(0, ((value - low) / length) * most));
    return [inside(event.clientX, box.left, box.width, width), inside(event.clientY, box.top, box.height, height)];
  };
  const report = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const add = (at, label) => report("points", [...model.get("points"), [...at, label]]);
  const clear = () => {
    model.set("points", []);
    report("box", []);
  };
  const undo = () => (model.get("points").length ? report("points", model.get("points").slice(0, -1)) : report("box", []));
  const corners = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];

  function draw() {
    const unit = width / (stage.clientWidth || width); // image pixels in one pixel of the screen
    const box = dragged || (model.get("box").length ? model.get("box") : null);
    const rectangle = box
      ? `<rect x="${box[0]}" y="${box[1]}" width="${box[2] - box[0]}" height="${box[3] - box[1]}" stroke-width="${2 * unit}"/>`
      : "";
    const dots = model.get("points").map(([x, y, label]) => {
      const r = 7 * unit;
      const sign = `M${x - r / 2} ${y}h${r}` + (label ? `M${x} ${y - r / 2}v${r}` : "");
      return `<circle class="${label ? "include" : "exclude"}" cx="${x}" cy="${y}" r="${r}" stroke-width="${unit}"/>
        <path d="${sign}" stroke-width="${2 * unit}"/>`;
    });
    const [x, y, r] = [...cross, 10 * unit];
    const keyboard = `<path class="cross" d="M${x - r} ${y}h${2 * r}M${x} ${y - r}v${2 * r}" stroke-width="${unit}"/>`;
    svg.innerHTML = rectangle + dots.join("") + keyboard;
    const layers = model.get("layers");
    layer.hidden = !layers.length;
    if (layers.length) layer.src = layers[Math.min(model.get("chosen"), layers.length - 1)];
    masks.replaceChildren(
      ...model.get("iou").map((iou, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("role", "radio");
        button.setAttribute("aria-checked", String(i === model.get("chosen")));
        button.textContent = `mask ${i + 1}: predicted IoU ${iou.toFixed(2)}`;
        button.onclick = () => report("chosen", i);
        return button;
      }),
    );
    el.querySelector(".message").textContent = model.get("message");
  }

  stage.onpointerdown = (event) => {
    if (event.button > 0) return;
    start = { at: place(event), x: event.clientX, y: event.clientY };
    stage.setPointerCapture?.(event.pointerId);
  };
  stage.onpointermove = (event) => {
    if (!start || Math.hypot(event.clientX - start.x, event.clientY - start.y) < DRAG) return;
    dragged = corners(start.at, place(event));
    draw();
  };
  stage.onpointerup = (event) => {
    if (!start || event.button > 0) return;
    if (dragged) report("box", dragged);
    else add(place(event), 1);
    start = dragged = null;
  };
  stage.onpointercancel = () => (start = dragged = null);
  stage.oncontextmenu = (event) => {
    event.preventDefault();
    add(place(event), 0);
  };
  stage.onkeydown = (event) => {
    const step = Math.max(width, height) / (event.shiftKey ? 10 : 50);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const keys = { i: () => add(cross, 1), e: () => add(cross, 0), u: undo, c: clear };
    if (moves[event.key]) {
      const moved = cross.map((value, axis) => value + moves[event.key][axis]);
      cross = moved.map((value, axis) => Math.min([width, height][axis] - 1, Math.max(0, value)));
      draw();
    } else if (keys[event.key]) keys[event.key]();
    else if (Number(event.key) >= 1 && Number(event.key) <= model.get("iou").length) report("chosen", event.key - 1);
    else return;
    event.preventDefault();
  };
  el.querySelector(".undo").onclick = undo;
  el.querySelector(".clear").onclick = clear;
  const names = ["points", "box", "layers", "iou", "chosen", "message"].map((name) => `change:${name}`);
  names.forEach((name) => model.on(name, draw));
  draw();
  return () => names.forEach((name) => model.off(name, draw));
}

export default { render };
