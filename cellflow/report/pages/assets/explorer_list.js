"use strict";
// The list of the explorer: sorted, filtered, and one of it selected.
(() => {
  const ex = window.explorerParts;
  if (!ex) return;
  const { facts, $, list, count, known, make, ERRORS, hasErrors, state } = ex;

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
    option.addEventListener("click", () => ex.show(item, { push: true }));
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
    if (state.shown[to] !== state.item) ex.show(state.shown[to], { push: true });
    else ex.say(by > 0 ? "This is the last image of the list." : "This is the first image of the list.");
  }

  for (const name of ["sort", "type", "fold"]) $(name).addEventListener("change", arrange);
  $("text").addEventListener("input", arrange);
  $("order").addEventListener("click", () => {
    $("order").setAttribute("aria-pressed", String($("order").getAttribute("aria-pressed") !== "true"));
    arrange();
  });

  Object.assign(ex, { summary, arrange, markSelected, step });
})();
