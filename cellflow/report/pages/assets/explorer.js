"use strict";
// The explorer: a list of images, and one of them with its layers, outlines and errors.
(() => {
  const root = document.querySelector("[data-explorer]");
  if (!root) return;
  const facts = JSON.parse(document.getElementById("explorer-data").textContent);
  const $ = (name) => root.querySelector(`[data-${name}]`);
  const view = $("view"), list = $("list"), canvas = $("canvas"), stage = $("stage");
  const style = getComputedStyle(root);
  const tint = (name) => style.getPropertyValue(`--ex-${name}`).trim();
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const known = (value) => value !== null && value !== undefined;
  const make = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);
  const store = (layer) => layer === "image" ? "" : `_${layer}`;

  // Each error has its colour, its dashes, and its two letters.
  const ERRORS = {
    missed: { name: "Missed", letters: "Mi", dash: [], key: "m", says: "missed cell" },
    false: { name: "False", letters: "Fa", dash: [3, 3], key: "f", says: "false cell" },
    split: { name: "Split", letters: "Sp", dash: [9, 4], key: "s", says: "split cell" },
    merged: { name: "Merged", letters: "Me", dash: [12, 4, 2, 4], key: "g", says: "merged cells" },
    poor: { name: "Poor outline", letters: "Po", dash: [2, 4], key: "o", says: "poor outline" },
  };
  const PICTURES = { image: "Image", seen: "As the run sees it", flow: "Flow", cellprob: "Cellprob", disagreement: "Disagreement" };
  const LAYERS = [];
  const add = (id, name) => LAYERS.push({ id, name, key: String(LAYERS.length + 1) });
  const hasErrors = facts.truth && facts.predicted;
  for (const id of ["image", "seen"]) if (facts.layers.includes(id)) add(id, PICTURES[id]);
  if (facts.truth) add("truth", "Truth");
  if (facts.predicted) add("predicted", "Prediction");
  if (hasErrors) add("errors", "Errors");
  for (const id of ["flow", "cellprob", "disagreement"]) if (facts.layers.includes(id)) add(id, PICTURES[id]);
  const usual = ["image", "truth", "predicted", "errors"].filter((id) => LAYERS.some((layer) => layer.id === id));
  if (!facts.layers.includes("image") && facts.layers.includes("cellprob")) usual.unshift("cellprob");

  const state = {
    shown: [], item: null, cells: null, pictures: {}, on: new Set(usual), hidden: new Set(), at: -1,
    scale: 1, x: 0, y: 0, fitted: true, blend: 0.65,
  };

  // ---- the list ------------------------------------------------------------------------------------

  const SORTS = [
    ["score", "Score, worst first", 1, (item) => item.score],
    ...(hasErrors ? Object.entries(ERRORS).map(([kind, error]) => [kind, `${error.name}, most first`, -1, (item) => item.counts?.[kind]]) : [
      ["missed", "Missed, most first", -1, (item) => item.n_missed],
      ["false", "False, most first", -1, (item) => item.n_false],
    ]),
    ["cells", "Cells, most first", -1, (item) => item.n_true],
    ["id", "Id", 1, (item) => item.id],
  ];

  function summary(item) {
    if (item.problem) return "cannot be shown";
    const counts = item.counts ?? { missed: item.n_missed, false: item.n_false };
    const parts = Object.keys(ERRORS).filter((kind) => counts[kind] > 0).map((kind) => `${counts[kind]} ${kind}`);
    return parts.join(", ") || "no errors";
  }

  facts.images.forEach((item, index) => {
    const option = make("div", "", { className: "ex-item", id: `ex-item-${index}` });
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    const image = make("img", "", { className: "ex-thumb", alt: "", loading: "lazy", decoding: "async" });
    if (item.thumb) image.src = item.thumb;
    const words = make("div");
    const about = [known(item.score) ? item.score.toFixed(3) : "no score", `fold ${item.fold}`, item.type].filter(Boolean);
    words.append(make("b", cellflowShort(item.id), { title: item.id }), make("span", about.join(" · ")), make("span", summary(item)));
    option.append(image, words);
    option.addEventListener("click", () => show(item, { push: true }));
    item.option = option;
    item.index = index;
  });

  function choices(select, values, all) {
    select.append(new Option(all, ""), ...values.map((value) => new Option(value === "" ? "(none)" : value, `=${value}`)));
  }
  const distinct = (key) => [...new Set(facts.images.map((item) => item[key]))].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
  $("sort").append(...SORTS.filter(([, , , value]) => facts.images.some((item) => known(value(item)))).map(([id, name]) => new Option(name, id)));
  choices($("type"), distinct("type"), "all");
  choices($("fold"), distinct("fold"), "all");
  if (distinct("type").length < 2) $("type-label").hidden = true;

  function arrange() {
    const [, , way, value] = SORTS.find(([id]) => id === $("sort").value);
    const turn = $("order").getAttribute("aria-pressed") === "true" ? -way : way;
    const text = $("text").value.trim().toLowerCase();
    const fits = (item) =>
      (!$("type").value || $("type").value === `=${item.type}`) &&
      (!$("fold").value || $("fold").value === `=${item.fold}`) &&
      item.id.toLowerCase().includes(text);
    const compare = (a, b) => {
      const one = value(a), two = value(b);
      if (!known(one) || !known(two)) return known(two) - known(one);  // what is unknown comes last
      return turn * (typeof one === "string" ? one.localeCompare(two, "en", { numeric: true }) : one - two) || a.index - b.index;
    };
    state.shown = facts.images.filter(fits).sort(compare);
    list.replaceChildren(...state.shown.map((item) => item.option));
    if (!state.shown.length) list.append(make("p", "No image is left. Choose less.", { className: "ex-none" }));
    $("left").textContent = `${state.shown.length.toLocaleString("en")} of ${count(facts.images.length, "image")}`;
    markSelected();
  }

  function markSelected() {
    for (const item of facts.images) item.option.setAttribute("aria-selected", String(item === state.item));
    if (!state.item || !state.shown.includes(state.item)) { list.removeAttribute("aria-activedescendant"); return; }
    list.setAttribute("aria-activedescendant", state.item.option.id);
    const box = state.item.option.getBoundingClientRect(), frame = list.getBoundingClientRect();
    if (box.top < frame.top) list.scrollTop -= frame.top - box.top + 4;
    if (box.bottom > frame.bottom) list.scrollTop += box.bottom - frame.bottom + 4;
    if (box.left < frame.left) list.scrollLeft -= frame.left - box.left + 4;
    if (box.right > frame.right) list.scrollLeft += box.right - frame.right + 4;
  }

  function step(by) {
    if (!state.shown.length) return;
    const at = state.shown.indexOf(state.item);
    const to = at < 0 ? 0 : Math.min(Math.max(at + by, 0), state.shown.length - 1);
    if (state.shown[to] !== state.item) show(state.shown[to], { push: true });
    else say(by > 0 ? "This is the last image of the list." : "This is the first image of the list.");
  }

  // ---- an image and its files ----------------------------------------------------------------------

  const loadCells = window.cellflowCells(facts.folder, Object.keys(ERRORS));

  function loadPicture(item, layer) {
    if (state.item !== item || state.pictures[layer] || !item.layers.includes(layer)) return;
    const picture = new Image();
    state.pictures[layer] = picture;
    picture.onload = draw;
    picture.onerror = () => tell(`The picture ${facts.folder}/${item.number}${store(layer)}.webp beside this page is missing.`);
    picture.src = `${facts.folder}/${item.number}${store(layer)}.webp`;
  }

  async function show(item, { push = false, replace = false } = {}) {
    Object.assign(state, { item, cells: null, pictures: {}, at: -1 });
    markSelected();
    $("name").textContent = item.id;
    const cells = known(item.n_true) ? `${count(item.n_true, "true cell")}, ${item.n_predicted.toLocaleString("en")} predicted` : "";
    const size = item.size[0] ? `${item.size[1]}\u00a0×\u00a0${item.size[0]}\u00a0pixels` : "";
    $("about").textContent = [known(item.score) ? `score ${item.score.toFixed(3)}` : "", item.type, `fold ${item.fold}`, cells, size].filter(Boolean).join(" · ");
    canvas.setAttribute("aria-label", `${item.id}: ${summary(item)}`);
    say("");
    tell(item.problem);
    $("link").hidden = true;
    if (item.size[0]) stage.style.setProperty("--ex-ratio", item.size[1] / item.size[0]);
    fit();
    drawErrors();
    if (push || replace) history[push ? "pushState" : "replaceState"](null, "", address());
    if (item.problem) return;
    state.on.forEach((layer) => loadPicture(item, layer));
    try {
      const loaded = await loadCells(item);
      if (state.item !== item) return;
      state.cells = loaded;
      drawErrors();
      draw();
      const next = state.shown[state.shown.indexOf(item) + 1];
      if (next && !next.problem) loadCells(next).catch(() => {});
    } catch (problem) {
      if (state.item === item) tell(String(problem));
    }
  }

  const say = (text) => { $("says").textContent = text; };
  const tell = (text) => { $("wait").textContent = text; $("wait").hidden = !text; };

  // ---- the address ---------------------------------------------------------------------------------

  function address() {
    const order = LAYERS.filter((layer) => state.on.has(layer.id)).map((layer) => layer.id).join(",");
    const hidden = [...state.hidden].join(",");
    return `#image=${encodeURIComponent(state.item.id)}&layers=${order}${hidden ? `&hide=${hidden}` : ""}`;
  }

  function follow() {
    if (!location.hash.startsWith("#image=")) return false;
    const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
    const item = facts.images.find((one) => one.id === given.get("image"));
    if (given.has("layers")) state.on = new Set(given.get("layers").split(",").filter((id) => LAYERS.some((layer) => layer.id === id)));
    state.hidden = new Set((given.get("hide") ?? "").split(",").filter((kind) => kind in ERRORS));
    pressLayers();
    if (item) show(item);
    else say(`There is no image ${given.get("image")} in this report.`);
    return Boolean(item);
  }

  async function copyLink() {
    history.replaceState(null, "", address());
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied.");
    } catch {
      $("link").hidden = false;
      $("address").value = location.href;
      $("address").select();
      say("Press Ctrl+C to copy the link.");
    }
  }

  // ---- layers and errors ---------------------------------------------------------------------------

  for (const layer of LAYERS) {
    const button = make("button", layer.name, { type: "button" });
    button.dataset.layer = layer.id;
    button.setAttribute("aria-keyshortcuts", layer.key);
    if (layer.id === "truth" || layer.id === "predicted") button.prepend(swatch(tint(layer.id), []), " ");
    button.append(make("kbd", layer.key));
    button.addEventListener("click", () => toggle(layer.id));
    $("layers").append(button);
  }
  if (facts.layers.some((id) => ["flow", "cellprob", "disagreement"].includes(id)) && facts.layers.includes("image")) {
    const label = make("label", "Over the image "), range = make("input", "", { type: "range", min: 0.1, max: 1, step: 0.05, value: state.blend });
    range.addEventListener("input", () => { state.blend = Number(range.value); draw(); });
    label.append(range);
    label.dataset.blend = "";
    $("layers").append(label);
  }

  function toggle(layer) {
    if (state.on.has(layer)) state.on.delete(layer); else state.on.add(layer);
    if (state.item) {
      loadPicture(state.item, layer);
      history.replaceState(null, "", address());
    }
    pressLayers();
    say(`${LAYERS.find((one) => one.id === layer).name} ${state.on.has(layer) ? "on" : "off"}.`);
    draw();
  }

  function pressLayers() {
    for (const button of $("layers").querySelectorAll("button")) button.setAttribute("aria-pressed", String(state.on.has(button.dataset.layer)));
    const scales = $("scale");
    scales.replaceChildren();
    if (state.on.has("flow") && facts.wheel) scales.append(scaleRow("flow", make("img", "", { src: facts.wheel, alt: "" }), "flow: hue its direction, brightness its length"));
    if (state.on.has("cellprob")) scales.append(scaleRow("cellprob", make("i"), "probability of a cell, 0 to 1"));
    if (state.on.has("disagreement")) scales.append(scaleRow("disagreement", make("i"), "disagreement, 0 to 1 unit flow"));
    scales.hidden = !scales.children.length;
    if ($("blend")) $("blend").hidden = !scales.children.length || !state.on.has("image");
    drawErrors();
  }

  function scaleRow(name, mark, text) {
    const row = make("div", "", { className: name });
    row.append(mark, make("span", text));
    return row;
  }

  function swatch(colour, dash) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "line");
    for (const [key, value] of Object.entries({ class: "ex-line", viewBox: "0 0 34 16", "aria-hidden": "true" })) svg.setAttribute(key, value);
    for (const [key, value] of Object.entries({ x1: 2, y1: 8, x2: 32, y2: 8, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash.join(" ") || "none" })) line.setAttribute(key, value);
    svg.append(line);
    return svg;
  }

  // The legend is made once, so that a button keeps the focus; only its numbers change.
  const legend = {};
  if (hasErrors) {
    for (const [kind, error] of Object.entries(ERRORS)) {
      const button = make("button", "", { type: "button" });
      const number = make("span", "–", { className: "count" });
      button.dataset.error = kind;
      button.setAttribute("aria-keyshortcuts", error.key);
      const tag = make("span", error.letters, { className: "ex-tag" });
      tag.style.background = tint(kind);
      button.append(tag, swatch(tint(kind), error.dash), make("span", error.name), number, make("kbd", error.key));
      button.addEventListener("click", () => toggleError(kind));
      legend[kind] = { button, number };
      $("errors").append(button);
    }
  } else {
    $("errors").hidden = $("sums-box").hidden = $("jumps").hidden = true;
  }

  function toggleError(kind) {
    if (state.hidden.has(kind)) state.hidden.delete(kind); else state.hidden.add(kind);
    state.on.add("errors");
    state.at = -1;
    pressLayers();
    if (state.item) history.replaceState(null, "", address());
    draw();
  }

  function drawErrors() {
    for (const [kind, { button, number }] of Object.entries(legend)) {
      button.setAttribute("aria-pressed", String(state.on.has("errors") && !state.hidden.has(kind)));
      number.textContent = known(state.item?.counts?.[kind]) ? state.item.counts[kind].toLocaleString("en") : "–";
    }
    if (hasErrors) $("sums").replaceChildren(...(state.cells?.errors ? [sums(state.cells)] : []));
  }

  // What of each kind the score counts as missed and as false, which are true and predicted cells that hit nothing.
  function sums(cells) {
    const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const title of ["What they are", "True cells", "of them missed at IoU 0.5", "Predicted cells", "of them false at IoU 0.5"]) head.append(make("th", title, { scope: "col" }));
    const total = [0, 0, 0, 0];
    const line = (name, numbers) => {
      const row = body.insertRow();
      row.append(make("th", name, { scope: "row" }), ...numbers.map((n) => make("td", n.toLocaleString("en"), { className: "num" })));
    };
    for (const [kind, name] of [["correct", "Correct"], ...Object.entries(ERRORS).map(([kind, error]) => [kind, error.name])]) {
      const numbers = ["truth", "predicted"].flatMap((side) => {
        const own = cells[side].filter((cell) => cell.kind === kind);
        return [own.length, own.filter((cell) => !cell.hit).length];
      });
      numbers.forEach((n, i) => { total[i] += n; });
      line(name, numbers);
    }
    line("Together, as in oof/scores.csv", total);
    return table;
  }

  const listed = () => (state.cells?.errors ?? []).filter((error) => !state.hidden.has(error.kind));

  function jumpTo(by) {
    const errors = listed();
    if (!state.cells) return;
    if (!errors.length) return say(state.cells.errors?.length ? "All errors of this image are switched off." : "There is no error in this image.");
    state.on.add("errors");
    state.at = state.at < 0 ? (by > 0 ? 0 : errors.length - 1) : (state.at + by + errors.length) % errors.length;
    pressLayers();
    const error = errors[state.at], [left, top, right, bottom] = error.box;
    const { width, height } = stage.getBoundingClientRect();
    state.scale = Math.min(width / (3.2 * (right - left)), height / (3.2 * (bottom - top)), 16);
    state.scale = Math.max(state.scale, fitScale());
    state.x = width / 2 - state.scale * (left + right) / 2;
    state.y = height / 2 - state.scale * (top + bottom) / 2;
    state.fitted = false;
    keepInside();
    say(`Error ${state.at + 1} of ${errors.length}: ${describe(error)}.`);
    draw();
  }

  function describe(error) {
    const { kind, truth, predicted } = error;
    const best = (cell) => cell.iou ? `its best IoU is ${cell.iou.toFixed(2)}` : null;
    if (kind === "missed") return `missed cell, ${best(truth[0]) ?? "no prediction touches it"}`;
    if (kind === "false") return `false cell, ${best(predicted[0]) ?? "it touches no true cell"}`;
    if (kind === "split") return `one true cell in ${predicted.length} pieces`;
    if (kind === "merged") return `one prediction over ${truth.length} true cells`;
    return `poor outline, IoU ${truth[0].iou.toFixed(2)}${truth[0].hit ? "" : ", which the score counts as missed and as false"}`;
  }

  function pointAt(px, py) {
    if (!state.cells) return;
    const x = (px - state.x) / state.scale, y = (py - state.y) / state.scale;
    const context = canvas.getContext("2d");
    context.save();
    context.resetTransform();
    const under = ["truth", "predicted"].flatMap((side) => state.cells[side].filter(({ box, path }) =>
      x >= box[0] && y >= box[1] && x <= box[2] && y <= box[3] && context.isPointInPath(path, x, y, "evenodd")));
    context.restore();
    const words = under.map((cell) => `${cell.side === "truth" ? "True" : "Predicted"} cell ${cell.index + 1}${cell.kind ? `: ${cell.kind === "poor" ? "poor outline" : cell.kind}, best IoU ${cell.iou.toFixed(2)}` : ""}`);
    say(words.length ? words.join(". ") + "." : `Background at x ${Math.floor(x)}, y ${Math.floor(y)}.`);
  }

  // ---- drawing -------------------------------------------------------------------------------------

  const size = () => state.item?.size[0] ? state.item.size : [1, 1];
  function fitScale() {
    const { width, height } = stage.getBoundingClientRect(), [rows, columns] = size();
    return Math.min(width / columns, height / rows);
  }

  function fit() {
    const { width, height } = stage.getBoundingClientRect(), [rows, columns] = size();
    state.scale = fitScale();
    state.x = (width - columns * state.scale) / 2;
    state.y = (height - rows * state.scale) / 2;
    state.fitted = true;
    draw();
  }

  function keepInside() {
    // A part of the image stays in sight.
    const { width, height } = stage.getBoundingClientRect(), [rows, columns] = size();
    const margin = Math.min(60, width / 4, height / 4);
    state.x = Math.min(Math.max(state.x, margin - columns * state.scale), width - margin);
    state.y = Math.min(Math.max(state.y, margin - rows * state.scale), height - margin);
  }

  function zoom(by, px, py) {
    const { width, height } = stage.getBoundingClientRect();
    px ??= width / 2; py ??= height / 2;
    const scale = Math.min(Math.max(state.scale * by, fitScale() / 2), 60);
    state.x = px - (px - state.x) * scale / state.scale;
    state.y = py - (py - state.y) * scale / state.scale;
    state.scale = scale;
    state.fitted = false;
    keepInside();
    draw();
  }

  function pan(dx, dy) {
    state.x += dx; state.y += dy;
    state.fitted = false;
    keepInside();
    draw();
  }

  let asked = 0;
  function draw() {
    asked ||= requestAnimationFrame(() => { asked = 0; paint(); });
  }

  function paint() {
    const ratio = devicePixelRatio || 1, { width, height } = stage.getBoundingClientRect();
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const context = canvas.getContext("2d");
    context.resetTransform();
    context.clearRect(0, 0, w, h);
    canvas.style.touchAction = state.fitted ? "pan-y" : "none";
    if (!state.item) return;
    context.setTransform(ratio * state.scale, 0, 0, ratio * state.scale, ratio * state.x, ratio * state.y);
    paintPictures(context, ratio);
    if (state.cells) paintOutlines(context);
    if (state.cells?.errors && state.on.has("errors")) paintTags(context, ratio);
    canvas.dataset.at = [state.scale, state.x, state.y].map((n) => n.toFixed(3)).join(" ");
  }

  function paintPictures(context, ratio) {
    const [rows, columns] = size();
    let below = false;
    for (const { id } of LAYERS) {
      const picture = state.pictures[id];
      if (!state.on.has(id) || !picture?.complete || !picture.naturalWidth) continue;
      context.imageSmoothingEnabled = ratio * state.scale * columns / picture.naturalWidth < 3;
      context.imageSmoothingQuality = "high";
      context.globalAlpha = below ? state.blend : 1;
      context.drawImage(picture, 0, 0, columns, rows);
      below = true;
    }
    context.globalAlpha = 1;
  }

  function line(context, path, colour, width, dash = []) {
    const unit = 1 / state.scale;
    context.setLineDash([]);
    context.lineWidth = (width + 1.2) * unit;
    context.strokeStyle = "rgb(0 0 0 / 55%)";
    context.stroke(path);
    context.setLineDash(dash.map((n) => n * unit));
    context.lineWidth = width * unit;
    context.strokeStyle = colour;
    context.stroke(path);
  }

  function paintOutlines(context) {
    context.lineJoin = "round";
    for (const side of ["truth", "predicted"]) if (state.on.has(side)) line(context, state.cells[`${side}Path`], tint(side), 1.2);
    if (!state.cells.errors || !state.on.has("errors")) return;
    for (const kind of Object.keys(ERRORS).reverse()) {
      if (state.hidden.has(kind)) continue;
      const { strong, thin } = state.cells.drawn[kind];
      if (kind !== "poor") line(context, thin, tint(kind), 1.2, ERRORS[kind].dash);
      line(context, strong, tint(kind), 2.4, ERRORS[kind].dash);
    }
  }

  function paintTags(context, ratio) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = "600 10.5px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const errors = listed(), current = errors[state.at], taken = [];
    const order = Object.keys(ERRORS), rank = (error) => error === current ? -1 : order.indexOf(error.kind);
    for (const error of [...errors].sort((a, b) => rank(a) - rank(b))) {
      // A tag for each that is large enough to be looked at, where no other one is.
      const [left, top, right, bottom] = error.box, side = Math.max(right - left, bottom - top) * state.scale;
      if (side < (error.kind === "poor" ? 44 : 26) && error !== current) continue;
      const x = state.scale * (left + right) / 2 + state.x, y = state.scale * top + state.y - 2;
      if (taken.some(([u, v]) => Math.abs(u - x) < 23 && Math.abs(v - y) < 16)) continue;
      taken.push([x, y]);
      context.fillStyle = tint(error.kind);
      context.beginPath();
      context.roundRect(x - 10, y - 7, 20, 14, 4);
      context.fill();
      context.fillStyle = "#0b0e13";
      context.fillText(ERRORS[error.kind].letters, x, y);
    }
    if (!current) return;
    const [left, top, right, bottom] = current.box, edge = 12;
    const frame = [state.scale * left + state.x - edge, state.scale * top + state.y - edge - 6, state.scale * (right - left) + 2 * edge, state.scale * (bottom - top) + 2 * edge + 6];
    for (const [colour, width, dash] of [["rgb(0 0 0 / 70%)", 3.5, []], ["#ffffff", 1.5, [6, 5]]]) {
      context.setLineDash(dash);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(...frame);
    }
  }

  // ---- hands ---------------------------------------------------------------------------------------

  const touches = new Map();
  let moved = 0;
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const apart = () => { const [a, b] = [...touches.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  const between = () => { const [a, b] = [...touches.values()]; return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]; };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    touches.set(event.pointerId, place(event));
    if (touches.size === 1) moved = 0;
    canvas.classList.add("drags");
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = touches.get(event.pointerId);
    if (!before) return;
    const now = place(event), was = touches.size === 2 ? [apart(), ...between()] : null;
    touches.set(event.pointerId, now);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (was) {
      const [x, y] = between();
      if (was[0] > 0) zoom(apart() / was[0], x, y);
      pan(x - was[1], y - was[2]);
    } else if (touches.size === 1 && !(event.pointerType === "touch" && state.fitted)) {
      if (moved > 3) pan(now[0] - before[0], now[1] - before[1]);
    }
  });
  const lift = (event) => {
    if (touches.delete(event.pointerId) && event.type === "pointerup" && moved <= 3 && !touches.size) pointAt(...place(event));
    if (!touches.size) canvas.classList.remove("drags");
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 0.5 : 2, ...place(event)));
  canvas.addEventListener("wheel", (event) => {
    // The page scrolls on until somebody works here.
    if (!event.ctrlKey && !root.contains(document.activeElement)) return say("Click into the picture, then the wheel zooms.");
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });

  // ---- keys ----------------------------------------------------------------------------------------

  const HELP = [
    ["n or j, p or k", "next and previous image of the list"],
    [LAYERS.length > 1 ? `1 to ${LAYERS.length}` : "1", `layers: ${LAYERS.map((layer) => layer.name.toLowerCase()).join(", ")}`],
    ...(hasErrors ? [
      ["e, Shift+e", "next and previous error, closer"],
      [Object.values(ERRORS).map((error) => error.key).join(" "), `errors: ${Object.values(ERRORS).map((error) => error.name.toLowerCase()).join(", ")}`],
    ] : []),
    ["+ −, wheel, pinch", "zoom"],
    ["double click", "closer; with Shift further away"],
    ["0", "the whole image"],
    ["arrows, drag", "move the picture, when it has the focus"],
    ["click", "what the cell below is"],
    ["?", "these keys"],
  ];
  for (const [keys, text] of HELP) $("keys").append(make("dt", keys), make("dd", text));

  const DEEDS = {
    previous: () => step(-1), next: () => step(1), in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit, copy: copyLink,
    after: () => jumpTo(1), before: () => jumpTo(-1),
    full: () => document.fullscreenElement ? document.exitFullscreen() : view.requestFullscreen?.().catch(() => say("This browser shows no full screen.")),
    help: () => $("help").showModal(),
  };
  root.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", DEEDS[button.dataset.do]));

  const KEYS = {
    n: DEEDS.next, j: DEEDS.next, p: DEEDS.previous, k: DEEDS.previous, "+": DEEDS.in, "=": DEEDS.in, "-": DEEDS.out, 0: fit, "?": DEEDS.help,
    e: () => hasErrors && jumpTo(1), E: () => hasErrors && jumpTo(-1),
    ...Object.fromEntries(LAYERS.map((layer) => [layer.key, () => toggle(layer.id)])),
    ...Object.fromEntries(hasErrors ? Object.entries(ERRORS).map(([kind, error]) => [error.key, () => toggleError(kind)]) : []),
  };
  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range]), select") || $("help").open) return;
    const arrow = ARROWS[event.key];
    let deed = KEYS[event.key];
    if (arrow && event.target === canvas) deed = () => pan(60 * arrow[0], 60 * arrow[1]);
    if (arrow && event.target === list) deed = () => step(-(arrow[0] + arrow[1]));
    if (event.target === list && event.key === "Home") deed = () => step(-state.shown.length);
    if (event.target === list && event.key === "End") deed = () => step(state.shown.length);
    if (!deed) return;
    event.preventDefault();
    deed();
  });

  for (const name of ["sort", "type", "fold"]) $(name).addEventListener("change", arrange);
  $("text").addEventListener("input", arrange);
  $("order").addEventListener("click", () => {
    $("order").setAttribute("aria-pressed", String($("order").getAttribute("aria-pressed") !== "true"));
    arrange();
  });
  addEventListener("popstate", () => { if (!follow() && !location.hash && state.shown.length) show(state.shown[0]); });
  new ResizeObserver(() => state.fitted ? fit() : draw()).observe(stage);

  pressLayers();
  arrange();
  if (follow()) {
    root.closest("section").scrollIntoView();
    canvas.focus({ preventScroll: true });
  } else if (state.shown.length) show(state.shown[0]);
  root.dataset.ready = "true";
})();
