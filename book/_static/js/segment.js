/* Click to segment, in the page: the notebook widget's browser half (sslcourse/segment/widget.js), with the mask decoder
   behind it, run by ONNX Runtime on one thread. The page inlines decoder, image embeddings and first answers; the runtime
   is loaded from _static/onnxruntime when a reader first prompts. No network. Without JavaScript the still picture stays. */
(function () {
  "use strict";
  const HERE = document.currentScript.src;
  const COLOUR = [255, 160, 0], OPACITY = 128;
  const PADDING = -1, TOP_LEFT = 2, BOTTOM_RIGHT = 3;
  const KINDS = ["whole", "emblem", "dot"];
  let runtime = null;

  async function inflate(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const floats = async (packed) => new Float32Array((await inflate(packed)).buffer);
  const fromSource = (code) => import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));

  /* A page on a disk may not fetch files, but it may add a script. */
  function loadRuntime() {
    runtime = runtime || new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("../onnxruntime/onnxruntime.js", HERE).href;
      script.onload = resolve;
      script.onerror = () => reject(new Error("the runtime is missing beside this page"));
      document.head.append(script);
    }).then(async () => {
      const [code, wasm] = await Promise.all([window.onnxruntimeFiles.module, window.onnxruntimeFiles.wasm].map(inflate));
      const ort = await fromSource(code);
      Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm.buffer });
      ort.env.logLevel = "error";
      return ort;
    });
    return runtime;
  }

  /* prompts -> [{ logits (side x side), iou }], mask 0 first. */
  async function decoderOf(data) {
    const ort = await loadRuntime();
    const session = await ort.InferenceSession.create(await inflate(data.graph), {
      executionProviders: ["wasm"],
      externalData: [{ path: "weights", data: await inflate(data.weights) }],
    });
    const side = 4 * data.grid;
    const tensor = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
    return async (embedding, points, box, mask) => {
      const places = points.map(([x, y]) => [x, y]), labels = points.map((point) => point[2]);
      if (box.length) {
        places.push(box.slice(0, 2), box.slice(2));
        labels.push(TOP_LEFT, BOTTOM_RIGHT);
      } else {
        places.push([0, 0]);
        labels.push(PADDING);
      }
      const out = await session.run({
        image_embeddings: tensor(embedding, [1, data.dim, data.grid, data.grid]),
        point_coords: tensor(places.flat(), [1, places.length, 2]),
        point_labels: tensor(labels, [1, labels.length]),
        mask_input: tensor(mask || new Float32Array(side * side), [1, 1, side, side]),
        has_mask_input: tensor([mask ? 1 : 0], [1]),
      });
      const { data: logits } = out.low_res_masks, { data: iou } = out.iou_predictions;
      return Array.from(iou, (value, i) => ({ logits: logits.slice(i * side * side, (i + 1) * side * side), iou: value }));
    };
  }

  /* Logits (side x side) enlarged bilinearly, pixel centres aligned, and cut at 0: size x size of 0 and 1. */
  function enlarge(logits, side, size) {
    const at = Array.from({ length: size }, (_, i) => {
      const c = Math.max(0, ((i + 0.5) * side) / size - 0.5), low = Math.floor(c);
      return [low, Math.min(side - 1, low + 1), c - low];
    });
    const mask = new Uint8Array(size * size);
    at.forEach(([y0, y1, v], y) => at.forEach(([x0, x1, u], x) => {
      const top = logits[y0 * side + x0] * (1 - u) + logits[y0 * side + x1] * u;
      const bottom = logits[y1 * side + x0] * (1 - u) + logits[y1 * side + x1] * u;
      mask[y * size + x] = top * (1 - v) + bottom * v > 0 ? 1 : 0;
    }));
    return mask;
  }

  function layerOf(mask, size) {
    const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const context = canvas.getContext("2d"), picture = context.createImageData(size, size);
    const out = (y, x) => y >= 0 && x >= 0 && y < size && x < size && !mask[y * size + x];
    for (let i = 0; i < size * size; i++) {
      if (!mask[i]) continue;
      const [y, x] = [Math.floor(i / size), i % size];
      const edge = [-1, 0, 1].some((dy) => [-1, 0, 1].some((dx) => out(y + dy, x + dx)));
      picture.data.set([...COLOUR, edge ? 255 : OPACITY], 4 * i);
    }
    context.putImageData(picture, 0, 0);
    return canvas.toDataURL();
  }

  /* One channel of a picture at a data address: size x size. */
  async function channel(address, size, which) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const all = context.getImageData(0, 0, size, size).data;
    return Uint8Array.from({ length: size * size }, (_, i) => all[4 * i + which]);
  }

  /* The true part that a mask fits best: parts hold 1 + 3 k + (whole 0, emblem 1, dot 2) in each pixel, 0 outside. */
  function nearest(mask, parts) {
    let best = { iou: 0, kind: "" };
    const last = parts.reduce((a, b) => Math.max(a, b), 0);
    for (let first = 1; first <= last; first++) {
      const end = first + 2 - ((first - 1) % 3);
      let both = 0, either = 0;
      for (let i = 0; i < mask.length; i++) {
        const inside = parts[i] >= first && parts[i] <= end;
        both += mask[i] && inside ? 1 : 0;
        either += mask[i] || inside ? 1 : 0;
      }
      if (both / either > best.iou) best = { iou: both / either, kind: KINDS[(first - 1) % 3] };
    }
    return best;
  }

  /* What the widget expects of a notebook: values with a name, and a word when one changes. */
  function store(values, meant, changed) {
    const listeners = {};
    return {
      get: (name) => values[name],
      set(name, value) {
        values[name] = meant(name, value);
        (listeners[`change:${name}`] || []).forEach((call) => call());
        changed(name);
      },
      save_changes() {},
      on: (name, call) => (listeners[name] = listeners[name] || []).push(call),
      off: (name, call) => (listeners[name] = (listeners[name] || []).filter((other) => other !== call)),
    };
  }

  async function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const { size } = data, side = 4 * data.grid;
    const { default: widget } = await fromSource(data.widget);
    const style = Object.assign(document.createElement("style"), { textContent: data.css });
    const title = Object.assign(document.createElement("h4"), { textContent: "Click to segment" });
    const tabs = document.createElement("div"), stage = document.createElement("div");
    const tick = Object.assign(document.createElement("label"), { className: "tick", textContent: " left clicks and taps exclude" });
    const excludes = Object.assign(document.createElement("input"), { type: "checkbox" });
    tick.prepend(excludes);
    const readout = Object.assign(document.createElement("p"), { className: "readout" });
    const hint = Object.assign(document.createElement("p"), { className: "hint" });
    tabs.className = "tabs";
    tabs.setAttribute("role", "group");
    tabs.setAttribute("aria-label", "image");
    readout.setAttribute("aria-live", "polite");
    hint.textContent = "Keyboard: Tab to the picture, arrow keys move the cross (with Shift further), I includes, E excludes, U undoes, " +
      "C clears, 1 to 3 choose a mask. A further click refines the mask that is chosen.";
    root.replaceChildren(style, title, tabs, stage, tick, readout, hint);
    let decode = null, model = null, current = null, turn = 0, masks = [];

    function say() {
      const i = model.get("chosen"), iou = model.get("iou")[i];
      if (iou === undefined) readout.textContent = "No prompt yet: click on something.";
      else if (!current.truth) readout.textContent = `Predicted IoU ${iou.toFixed(2)}. Nobody drew masks for this photograph, so there is no true one.`;
      else if (masks[i]) {
        const { iou: value, kind } = nearest(masks[i], current.truth);
        readout.textContent = `Predicted IoU ${iou.toFixed(2)}; true IoU with the nearest part ${value.toFixed(2)}` + (kind ? ` (${kind}).` : ".");
      }
    }

    /* For those without a right button: with the tick, a place that was just included is excluded instead. */
    function meant(name, value) {
      const added = name === "points" && value.length > model.get("points").length;
      return added && excludes.checked ? [...value.slice(0, -1), [...value[value.length - 1].slice(0, 2), 0]] : value;
    }

    /* One pass after each click: every pass but the first also sees the mask before it. */
    async function answer() {
      const mine = ++turn, points = model.get("points"), box = model.get("box");
      if (!points.length && !box.length) {
        masks = [];
        [["layers", []], ["iou", []], ["chosen", 0]].forEach((change) => model.set(...change));
        return;
      }
      try {
        if (!decode) model.set("message", "Loading the decoder\u2026");
        decode = decode || decoderOf(data);
        const run = await decode;
        current.values = current.values || (await floats(current.embedding));
        let found = [], shown = null;
        for (let n = box.length ? 0 : 1; n <= points.length; n++) {
          const all = await run(current.values, points.slice(0, n), box, shown && shown.logits);
          found = n === 1 && !box.length ? all.slice(1) : all.slice(0, 1);
          const best = found.reduce((a, b, i) => (b.iou > found[a].iou ? i : a), 0);
          shown = n === 1 && current.pick !== null && found[current.pick] ? found[current.pick] : found[best];
        }
        if (mine !== turn) return; // another click came meanwhile
        masks = found.map((one) => enlarge(one.logits, side, size));
        model.set("message", "");
        model.set("layers", masks.map((mask) => layerOf(mask, size)));
        model.set("iou", found.map((one) => one.iou));
        model.set("chosen", found.indexOf(shown));
      } catch (error) {
        model.set("message", `This browser cannot run the decoder (${error.message}). The figure's first answer stays.`);
      }
    }

    function changed(name) {
      if (name === "points" && model.get("points").length < 2) current.pick = null;
      if (name === "points" || name === "box") root.answered = answer();
      else if (name === "chosen" || name === "iou") {
        if (name === "chosen" && model.get("points").length === 1) current.pick = model.get("chosen");
        say();
      }
    }

    async function show(image) {
      turn++;
      current = image;
      current.pick = null;
      [...tabs.children].forEach((tab, i) => tab.setAttribute("aria-pressed", String(data.images[i] === image)));
      current.truth = image.parts && (await channel(image.parts, size, 0));
      const first = image.first;
      masks = await Promise.all(first.layers.map((layer) => channel(layer, size, 3)));
      masks.forEach((mask) => mask.forEach((alpha, i) => (mask[i] = alpha ? 1 : 0)));
      model = store({ picture: image.picture, size: [size, size], message: "", box: [], ...first, points: [...first.points] }, meant, changed);
      stage.replaceChildren();
      widget.render({ model, el: stage });
      say();
    }

    data.images.forEach((image) => {
      const tab = Object.assign(document.createElement("button"), { type: "button", textContent: image.name });
      tab.setAttribute("aria-pressed", "false");
      tab.addEventListener("click", () => show(image));
      tabs.append(tab);
    });
    root.segment = { prompt: (name, value) => (model.set(name, value), root.answered), get: (name) => model.get(name) };
    await show(data.images[0]);
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-click").forEach((root) => {
    const still = [...root.childNodes];
    build(root).catch(() => root.replaceChildren(...still));
  }));
})();
