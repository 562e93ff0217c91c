"use strict";
// Layers and errors of the explorer: their buttons, their numbers, and from error to error.
(() => {
  const ex = window.explorerParts;
  if (!ex) return;
  const { facts, $, stage, tint, count, known, make, ERRORS, LAYERS, hasErrors, state } = ex;

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
    range.addEventListener("input", () => { state.blend = Number(range.value); ex.draw(); });
    label.append(range);
    label.dataset.blend = "";
    $("layers").append(label);
  }

  function toggle(layer) {
    if (state.on.has(layer)) state.on.delete(layer); else state.on.add(layer);
    if (state.item) {
      ex.loadPicture(state.item, layer);
      history.replaceState(null, "", ex.address());
    }
    pressLayers();
    ex.say(`${LAYERS.find((one) => one.id === layer).name} ${state.on.has(layer) ? "on" : "off"}.`);
    ex.draw();
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
    if (state.item) history.replaceState(null, "", ex.address());
    ex.draw();
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
    if (!errors.length) return ex.say(state.cells.errors?.length ? "All errors of this image are switched off." : "There is no error in this image.");
    state.on.add("errors");
    state.at = state.at < 0 ? (by > 0 ? 0 : errors.length - 1) : (state.at + by + errors.length) % errors.length;
    pressLayers();
    const error = errors[state.at], [left, top, right, bottom] = error.box;
    const { width, height } = stage.getBoundingClientRect();
    state.scale = Math.min(width / (3.2 * (right - left)), height / (3.2 * (bottom - top)), 16);
    state.scale = Math.max(state.scale, ex.fitScale());
    state.x = width / 2 - state.scale * (left + right) / 2;
    state.y = height / 2 - state.scale * (top + bottom) / 2;
    state.fitted = false;
    ex.keepInside();
    ex.say(`Error ${state.at + 1} of ${errors.length}: ${describe(error)}.`);
    ex.draw();
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

  Object.assign(ex, { toggle, pressLayers, toggleError, drawErrors, listed, jumpTo });
})();
