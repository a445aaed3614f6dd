/* Mask painter: pictures with some patches hidden, what copying from the nearest visible patch makes of them, and what a
   trained MAE paints. The page inlines originals, masks and the MAE's paintings; masked and copied pictures are computed
   here. No library, no network. Without JavaScript the still picture inside the element stays. */
(function () {
  "use strict";
  const KINDS = { random: "random: each patch by itself", block: "block: rectangles, as in BEiT", grid: "grid: all but one of each 2 \u00d7 2" };

  function labelled(parent, text, input, output) {
    const label = document.createElement("label");
    label.append(text);
    if (output) label.append(output);
    label.append(input);
    parent.append(label);
    return input;
  }

  function choice(parent, text, options) {
    const select = document.createElement("select");
    options.forEach(([value, name]) => select.append(new Option(name, value)));
    return labelled(parent, text, select);
  }

  function range(parent, text, max, value, output) {
    return labelled(parent, text, Object.assign(document.createElement("input"), { type: "range", min: 0, max, step: 1, value }), output);
  }

  /* Hexadecimal digits, four patches each in reading order, to booleans. */
  function bits(hex) {
    return [...hex].flatMap((digit) => [8, 4, 2, 1].map((bit) => (parseInt(digit, 16) & bit) > 0));
  }

  /* Where several visible patches are equally near, the mean of their mean colours: `copy_nearest` of the library. */
  function copied(pixels, hidden, grid, patch) {
    const size = grid * patch, out = new ImageData(new Uint8ClampedArray(pixels.data), size, size);
    const colour = hidden.map((_, n) => {
      const sum = [0, 0, 0];
      each(n, grid, patch, (at) => { for (let c = 0; c < 3; c++) sum[c] += pixels.data[at + c]; });
      return sum.map((s) => s / (patch * patch));
    });
    hidden.forEach((away, n) => {
      if (!away) return;
      let nearest = Infinity, found = [];
      hidden.forEach((gone, m) => {
        if (gone) return;
        const distance = (Math.floor(n / grid) - Math.floor(m / grid)) ** 2 + (n % grid - m % grid) ** 2;
        if (distance < nearest) [nearest, found] = [distance, []];
        if (distance === nearest) found.push(m);
      });
      const mean = [0, 1, 2].map((c) => found.reduce((sum, m) => sum + colour[m][c], 0) / found.length);
      each(n, grid, patch, (at) => mean.forEach((v, c) => { out.data[at + c] = Math.round(v); }));
    });
    return out;
  }

  /* Calls `visit` with the place in the data of every pixel of patch n. */
  function each(n, grid, patch, visit) {
    for (let y = 0; y < patch; y++) for (let x = 0; x < patch; x++)
      visit(4 * ((Math.floor(n / grid) * patch + y) * grid * patch + (n % grid) * patch + x));
  }

  async function load(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  }

  async function build(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const { grid, patch, settings, seeds, pictures } = data, size = grid * patch;
    const [originals, painted] = await Promise.all([load(data.originals), load(data.painted)]);
    const store = Object.assign(document.createElement("canvas"), { width: size, height: size })
      .getContext("2d", { willReadFrequently: true });
    const cut = (sheet, n) => {
      const columns = sheet.width / size;
      store.drawImage(sheet, -(n % columns) * size, -Math.floor(n / columns) * size);
      return store.getImageData(0, 0, size, size);
    };
    const ratios = [...new Set(settings.filter((s) => s.kind === "random").map((s) => s.ratio))];

    root.replaceChildren();
    const title = document.createElement("h4");
    title.textContent = "Explore: hide patches, and have them painted";
    const controls = document.createElement("div");
    controls.className = "controls";
    const panels = document.createElement("div");
    panels.className = "paintings";
    const readout = document.createElement("p");
    readout.className = "readout";
    readout.setAttribute("aria-live", "polite");
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "The sliders and lists take the arrow keys. Errors are shares of what one colour for the whole picture would leave. " +
      "The network was trained with random masks of 75 % and has never seen a photograph.";
    root.append(title, controls, panels, readout, hint);

    const picture = choice(controls, "Picture: ", pictures.map((name, n) => [n, name]));
    const kind = choice(controls, "Kind of mask: ", Object.entries(KINDS));
    const hides = document.createElement("output"), draws = document.createElement("output");
    const ratio = range(controls, "Hidden: ", ratios.length - 1, ratios.indexOf(0.75), hides);
    const seed = range(controls, "Draw: ", seeds - 1, 0, draws);
    const views = ["what the encoder sees", "copied from the nearest", "painted by the MAE", "what was there"].map((name) => {
      const figure = document.createElement("figure");
      const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
      canvas.setAttribute("role", "img");
      const caption = document.createElement("figcaption");
      caption.textContent = name;
      figure.append(canvas, caption);
      panels.append(figure);
      return canvas;
    });

    function draw() {
      const even = kind.value === "grid";
      ratio.disabled = seed.disabled = even;  // a grid is always the same
      const wanted = even ? 0.75 : ratios[+ratio.value], k = even ? 0 : +seed.value;
      const s = settings.findIndex((one) => one.kind === kind.value && one.ratio === wanted);
      const hidden = bits(settings[s].masks[k]), count = hidden.filter(Boolean).length;
      hides.textContent = `${count} of ${grid * grid} patches`;
      draws.textContent = even ? "always the same" : `${k + 1} of ${seeds}`;
      ratio.setAttribute("aria-valuetext", hides.textContent);
      seed.setAttribute("aria-valuetext", draws.textContent);
      const n = +picture.value, at = (n * settings.length + s) * seeds + k;
      const truth = cut(originals, n), theirs = cut(painted, at);
      const masked = new ImageData(new Uint8ClampedArray(truth.data), size, size);
      const mae = new ImageData(new Uint8ClampedArray(truth.data), size, size);
      hidden.forEach((away, m) => away && each(m, grid, patch, (p) => {
        for (let c = 0; c < 3; c++) { masked.data[p + c] = 128; mae.data[p + c] = theirs.data[p + c]; }
      }));
      const shown = [masked, copied(truth, hidden, grid, patch), mae, truth];
      views.forEach((canvas, v) => canvas.getContext("2d").putImageData(shown[v], 0, 0));
      const [copy, own] = data.errors[at].map((e) => e.toFixed(2));
      const names = ["with " + hides.textContent + " grey", "copied, error " + copy, "painted, error " + own, "as it is"];
      views.forEach((canvas, v) => canvas.setAttribute("aria-label", `${pictures[n]}, ${names[v]}`));
      readout.textContent = `${hides.textContent} hidden (${kind.value}): copying leaves ${copy}, the MAE ${own} of the variance unexplained` +
        (+own < +copy ? "." : ": here copying is as good or better.");
    }
    [picture, kind, ratio, seed].forEach((input) => input.addEventListener("input", draw));
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".ssl-painter").forEach(build));
})();
