"use strict";
// Keys and buttons of the explorer, and what the help says of them.
(() => {
  const ex = window.explorerParts;
  if (!ex) return;
  const { root, $, view, list, canvas, make, ERRORS, LAYERS, hasErrors, state } = ex;

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
    previous: () => ex.step(-1), next: () => ex.step(1), in: () => ex.zoom(1.5), out: () => ex.zoom(1 / 1.5), fit: ex.fit, copy: () => ex.copyLink(),
    after: () => ex.jumpTo(1), before: () => ex.jumpTo(-1),
    full: () => document.fullscreenElement ? document.exitFullscreen() : view.requestFullscreen?.().catch(() => ex.say("This browser shows no full screen.")),
    help: () => $("help").showModal(),
  };
  root.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", DEEDS[button.dataset.do]));

  const KEYS = {
    n: DEEDS.next, j: DEEDS.next, p: DEEDS.previous, k: DEEDS.previous, "+": DEEDS.in, "=": DEEDS.in, "-": DEEDS.out, 0: ex.fit, "?": DEEDS.help,
    e: () => hasErrors && ex.jumpTo(1), E: () => hasErrors && ex.jumpTo(-1),
    ...Object.fromEntries(LAYERS.map((layer) => [layer.key, () => ex.toggle(layer.id)])),
    ...Object.fromEntries(hasErrors ? Object.entries(ERRORS).map(([kind, error]) => [error.key, () => ex.toggleError(kind)]) : []),
  };
  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range]), select") || $("help").open) return;
    const arrow = ARROWS[event.key];
    let deed = KEYS[event.key];
    if (arrow && event.target === canvas) deed = () => ex.pan(60 * arrow[0], 60 * arrow[1]);
    if (arrow && event.target === list) deed = () => ex.step(-(arrow[0] + arrow[1]));
    if (event.target === list && event.key === "Home") deed = () => ex.step(-state.shown.length);
    if (event.target === list && event.key === "End") deed = () => ex.step(state.shown.length);
    if (!deed) return;
    event.preventDefault();
    deed();
  });
})();
