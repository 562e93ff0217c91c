"use strict";
// An image of the explorer with its files, the link to it, and the start.
(() => {
  const ex = window.explorerParts;
  if (!ex) return;
  const { root, facts, $, canvas, stage, count, known, store, ERRORS, LAYERS, state } = ex;

  const loadCells = window.cellflowCells(facts.folder, Object.keys(ERRORS));

  function loadPicture(item, layer) {
    if (state.item !== item || state.pictures[layer] || !item.layers.includes(layer)) return;
    const picture = new Image();
    state.pictures[layer] = picture;
    picture.onload = ex.draw;
    picture.onerror = () => ex.tell(`The picture ${facts.folder}/${item.number}${store(layer)}.webp beside this page is missing.`);
    picture.src = `${facts.folder}/${item.number}${store(layer)}.webp`;
  }

  async function show(item, { push = false, replace = false } = {}) {
    Object.assign(state, { item, cells: null, pictures: {}, at: -1 });
    ex.markSelected();
    $("name").textContent = item.id;
    const cells = known(item.n_true) ? `${count(item.n_true, "true cell")}, ${item.n_predicted.toLocaleString("en")} predicted` : "";
    const size = item.size[0] ? `${item.size[1]}\u00a0×\u00a0${item.size[0]}\u00a0pixels` : "";
    $("about").textContent = [known(item.score) ? `score ${item.score.toFixed(3)}` : "", item.type, `fold ${item.fold}`, cells, size].filter(Boolean).join(" · ");
    canvas.setAttribute("aria-label", `${item.id}: ${ex.summary(item)}`);
    ex.say("");
    ex.tell(item.problem);
    $("link").hidden = true;
    if (item.size[0]) stage.style.setProperty("--ex-ratio", item.size[1] / item.size[0]);
    ex.fit();
    ex.drawErrors();
    if (push || replace) history[push ? "pushState" : "replaceState"](null, "", ex.address());
    if (item.problem) return;
    state.on.forEach((layer) => loadPicture(item, layer));
    try {
      const loaded = await loadCells(item);
      if (state.item !== item) return;
      state.cells = loaded;
      ex.drawErrors();
      ex.draw();
      const next = state.shown[state.shown.indexOf(item) + 1];
      if (next && !next.problem) loadCells(next).catch(() => {});
    } catch (problem) {
      if (state.item === item) ex.tell(String(problem));
    }
  }

  function follow() {
    if (!location.hash.startsWith("#image=")) return false;
    const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
    const item = facts.images.find((one) => one.id === given.get("image"));
    if (given.has("layers")) state.on = new Set(given.get("layers").split(",").filter((id) => LAYERS.some((layer) => layer.id === id)));
    state.hidden = new Set((given.get("hide") ?? "").split(",").filter((kind) => kind in ERRORS));
    ex.pressLayers();
    if (item) show(item);
    else ex.say(`There is no image ${given.get("image")} in this report.`);
    return Boolean(item);
  }

  async function copyLink() {
    history.replaceState(null, "", ex.address());
    try {
      await navigator.clipboard.writeText(location.href);
      ex.say("The link is copied.");
    } catch {
      $("link").hidden = false;
      $("address").value = location.href;
      $("address").select();
      ex.say("Press Ctrl+C to copy the link.");
    }
  }

  Object.assign(ex, { show, loadPicture, copyLink });

  addEventListener("popstate", () => { if (!follow() && !location.hash && state.shown.length) show(state.shown[0]); });
  new ResizeObserver(() => state.fitted ? ex.fit() : ex.draw()).observe(stage);

  ex.pressLayers();
  ex.arrange();
  if (follow()) {
    root.closest("section").scrollIntoView();
    canvas.focus({ preventScroll: true });
  } else if (state.shown.length) show(state.shown[0]);
  root.dataset.ready = "true";
})();
