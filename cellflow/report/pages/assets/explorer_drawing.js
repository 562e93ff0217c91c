"use strict";
// The picture of the explorer: drawn, moved and zoomed by hand.
(() => {
  const ex = window.explorerParts;
  if (!ex) return;
  const { root, canvas, stage, tint, ERRORS, LAYERS, state } = ex;

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
    const errors = ex.listed(), current = errors[state.at], taken = [];
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
    if (!event.ctrlKey && !root.contains(document.activeElement)) return ex.say("Click into the picture, then the wheel zooms.");
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });


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
    ex.say(words.length ? words.join(". ") + "." : `Background at x ${Math.floor(x)}, y ${Math.floor(y)}.`);
  }

  Object.assign(ex, { fitScale, fit, keepInside, zoom, pan, draw, pointAt });
})();
