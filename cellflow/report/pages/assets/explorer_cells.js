"use strict";
// The outlines of an image, from N.js beside the page: a function of the folder and the kinds of errors, which
// gives one that loads those of an image.
window.cellflowCells = (folder, kinds) => {
  const arrived = new Map(), waiting = new Map();
  // What N.js calls.
  window.cellflowExplorer = (cells) => waiting.get(cells.number)?.(cells);

  function loadCells(item) {
    if (arrived.has(item.number)) return Promise.resolve(arrived.get(item.number));
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const done = (call, value) => { waiting.delete(item.number); script.remove(); call(value); };
      waiting.set(item.number, (cells) => {
        if (cells.key !== item.key) return done(reject, "The report was written anew meanwhile. Load this page again.");
        unfold(cells);
        arrived.set(item.number, cells);
        if (arrived.size > 40) arrived.delete(arrived.keys().next().value);
        done(resolve, cells);
      });
      const lost = () => done(reject, `The file ${folder}/${item.number}.js beside this page is missing. Keep the folder ${folder} where the page is.`);
      script.onerror = lost;
      script.onload = () => waiting.has(item.number) && lost();
      script.src = `${folder}/${item.number}.js`;
      document.head.append(script);
    });
  }

  // A ring is "X,Y:" and a letter for each move, along x, then y, then x ...
  function trace(path, ring, box) {
    const [, left, top, moves] = /^(-?\d+),(-?\d+):(.*)$/.exec(ring);
    let x = Number(left), y = Number(top);
    path.moveTo(x, y);
    for (let i = 0; i <= moves.length; i++) {
      box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y); box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y);
      if (i === moves.length) break;
      const by = moves.charCodeAt(i) - 79;
      if (i % 2) y += by; else x += by;
      if (by) path.lineTo(x, y);
    }
    path.closePath();
  }

  function unfold(cells) {
    for (const side of ["truth", "predicted"]) {
      cells[side] = cells[side].map((rings, index) => {
        const path = new Path2D(), box = [Infinity, Infinity, -Infinity, -Infinity];
        rings.forEach((ring) => trace(path, ring, box));
        return { path, box, index, side, kind: cells[`${side}Kinds`]?.[index], hit: cells[`${side}Hit`]?.[index], iou: cells[`${side}Iou`]?.[index] };
      });
      const all = new Path2D();
      cells[side].forEach((cell) => all.addPath(cell.path));
      cells[`${side}Path`] = all;
    }
    if (!cells.errors) return;
    // From error to error as one reads: in bands from the top, each from the left.
    cells.errors = cells.errors.map(([kind, truth, predicted]) => {
      const parts = { truth: truth.map((i) => cells.truth[i]), predicted: predicted.map((i) => cells.predicted[i]) };
      const every = [...parts.truth, ...parts.predicted];
      const box = [Math.min(...every.map((c) => c.box[0])), Math.min(...every.map((c) => c.box[1])), Math.max(...every.map((c) => c.box[2])), Math.max(...every.map((c) => c.box[3]))];
      // The one cell of a split or a merge is drawn strong, the several thin.
      const strong = kind === "missed" || kind === "split" ? parts.truth : parts.predicted;
      return { kind, ...parts, box, strong, thin: every.filter((cell) => !strong.includes(cell)) };
    });
    const band = (error) => Math.floor((error.box[1] + error.box[3]) / 128);
    cells.errors.sort((a, b) => band(a) - band(b) || a.box[0] + a.box[2] - b.box[0] - b.box[2]);
    cells.drawn = Object.fromEntries(kinds.map((kind) => {
      const strong = new Path2D(), thin = new Path2D();
      for (const error of cells.errors.filter((one) => one.kind === kind)) {
        error.strong.forEach((cell) => strong.addPath(cell.path));
        error.thin.forEach((cell) => thin.addPath(cell.path));
      }
      return [kind, { strong, thin }];
    }));
  }

  return loadCells;
};
