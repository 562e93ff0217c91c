"use strict";
// The explorer, a list of images and one of them with its layers, outlines and errors: what its files share.
// Each of them adds its functions to this object, and explorer.js, the last one, begins.
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

  const say = (text) => { $("says").textContent = text; };
  const tell = (text) => { $("wait").textContent = text; $("wait").hidden = !text; };

  // The address of what is seen.
  function address() {
    const order = LAYERS.filter((layer) => state.on.has(layer.id)).map((layer) => layer.id).join(",");
    const hidden = [...state.hidden].join(",");
    return `#image=${encodeURIComponent(state.item.id)}&layers=${order}${hidden ? `&hide=${hidden}` : ""}`;
  }

  window.explorerParts = { root, facts, $, view, list, canvas, stage, tint, count, known, make, store, ERRORS, LAYERS, hasErrors, state, say, tell, address };
})();
