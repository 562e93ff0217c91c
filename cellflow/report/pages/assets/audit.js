"use strict";
// Marks of suspicions: by key or button, undone, kept, filtered, and downloaded as a list.
(() => {
  const list = document.querySelector("[data-cards]");
  if (!list) return;
  const { rows, columns, key } = JSON.parse(document.getElementById("audit-data").textContent);
  const cards = [...list.querySelectorAll(".card")];
  const place = `cellflow audit ${key}`;
  const marks = new Map();  // place of the row -> verdict
  const before = [];  // what undo goes back to: [row, its earlier verdict]
  const verdictOf = { a: "ok", f: "fix", d: "drop" };
  let saved = true;

  // A row is the same in a page that is made again if its annotations and proposal are.
  const name = (row) => JSON.stringify([rows[row].id, rows[row].kind, rows[row].cell, rows[row].check]);

  function load() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(place) ?? "{}") ?? {};
    } catch {
      saved = false;
    }
    rows.forEach((_, row) => {
      const verdict = kept[name(row)];
      if (verdict && !button(row, verdict)?.disabled) show(row, verdict);
    });
  }

  function keep() {
    try {
      // Of rows that this page does not show (--n), the marks stay.
      const kept = JSON.parse(localStorage.getItem(place) ?? "{}") ?? {};
      rows.forEach((_, row) => { delete kept[name(row)]; });
      marks.forEach((verdict, row) => { kept[name(row)] = verdict; });
      localStorage.setItem(place, JSON.stringify(kept));
      saved = true;
    } catch {
      saved = false;
    }
  }

  const button = (row, verdict) => cards[row].querySelector(`[data-verdict="${verdict}"]`);

  function show(row, verdict) {
    if (verdict) {
      marks.set(row, verdict);
      cards[row].dataset.verdict = verdict;
    } else {
      marks.delete(row);
      delete cards[row].dataset.verdict;
    }
    for (const one of cards[row].querySelectorAll("button[data-verdict]")) {
      one.setAttribute("aria-pressed", String(one.dataset.verdict === verdict));
    }
  }

  function mark(row, verdict) {
    const impossible = button(row, verdict).disabled ? button(row, verdict).title : "";
    document.querySelector("[data-said]").textContent = impossible;
    if (impossible) return false;
    const now = marks.get(row) ?? "";
    before.push([row, now]);
    show(row, now === verdict ? "" : verdict);
    keep();
    count();
    return now !== verdict;
  }

  function undo() {
    const last = before.pop();
    if (!last) return;
    show(...last);
    keep();
    count();
    filter();
    go(last[0]);
  }

  function count() {
    const of = (verdict) => [...marks.values()].filter((item) => item === verdict).length;
    document.querySelector("[data-counts]").textContent =
      `${marks.size} of ${rows.length} marked: ${of("ok")} ok, ${of("fix")} fix, ${of("drop")} drop`;
    document.querySelector("[data-undo]").disabled = !before.length;
    document.querySelector("[data-download]").disabled = !marks.size;
    document.querySelector("[data-stored]").textContent = saved ? "" :
      "This browser keeps no marks of pages from disk: download the list before you close the page.";
    document.body.toggleAttribute("data-unsaved", marks.size > 0);  // the page does not load itself again
  }

  const shown = () => cards.map((_, row) => row).filter((row) => !cards[row].parentElement.hidden);

  function filter() {
    for (const [row, card] of cards.entries()) {
      card.parentElement.hidden = [...document.querySelectorAll("[data-filter]")].some((select) => {
        if (!select.value) return false;
        if (select.dataset.filter === "verdict") return (marks.get(row) ?? "none") !== select.value;
        return card.getAttribute(`data-${select.dataset.filter}`) !== select.value;
      });
    }
    document.querySelector("[data-none]").hidden = shown().length > 0;
  }

  function go(row) {
    if (row === undefined || cards[row].parentElement.hidden) return;
    cards[row].focus({ preventScroll: true });
    cards[row].scrollIntoView({ block: "nearest" });
  }

  function step(row, many) {
    // From a card that a filter has hidden since, to the next that is there.
    const there = shown();
    const at = there.indexOf(row);
    const from = at >= 0 ? at : there.findIndex((other) => other > row) - (many > 0 ? 1 : 0);
    go(there[Math.max(0, Math.min(there.length - 1, from + many))]);
  }

  const perLine = () => {
    const tops = shown().map((row) => cards[row].offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };

  const current = () => {
    const card = document.activeElement?.closest?.(".card");
    return card ? Number(card.dataset.row) : -1;
  };

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const row = current();
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perLine(), ArrowUp: -perLine() };
    const layer = { n: "annotations", p: "predictions", o: "others" }[event.key];
    if (event.key in verdictOf) {
      if (row >= 0) {
        if (mark(row, verdictOf[event.key])) step(row, 1);
      } else {
        go(shown()[0]);
      }
    } else if (event.key in moves) {
      if (row < 0 && !event.key.match(/Right|Left/)) return;  // the page scrolls
      if (row < 0) go(shown()[0]); else step(row, moves[event.key]);
    } else if (event.key === "u") {
      undo();
    } else if (layer) {
      toggle(document.querySelector(`[data-layer="${layer}"]`));
    } else {
      return;
    }
    event.preventDefault();
  }

  function toggle(one) {
    const on = one.getAttribute("aria-pressed") !== "true";
    one.setAttribute("aria-pressed", String(on));
    list.classList.toggle(`hide-${one.dataset.layer}`, !on);
  }

  const quoted = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

  function download() {
    const marked = [...marks.keys()].sort((a, b) => a - b).map((row) => ({ ...rows[row], verdict: marks.get(row) }));
    const lines = [columns, ...marked.map((row) => columns.map((column) => row[column]))];
    const text = lines.map((line) => line.map(quoted).join(",") + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = "audit-list.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  cards.forEach((card, row) => {
    card.querySelectorAll("button[data-verdict]").forEach((one) => one.addEventListener("click", () => mark(row, one.dataset.verdict)));
    card.addEventListener("click", (event) => { if (!event.target.closest("button")) go(row); });
  });
  document.querySelectorAll("[data-filter]").forEach((select) => select.addEventListener("change", filter));
  document.querySelectorAll("[data-layer]").forEach((one) => one.addEventListener("click", () => toggle(one)));
  document.querySelector("[data-undo]").addEventListener("click", undo);
  document.querySelector("[data-download]").addEventListener("click", download);
  document.addEventListener("keydown", pressed);
  addEventListener("beforeunload", (event) => { if (!saved && marks.size) event.preventDefault(); });
  load();
  keep();
  count();
})();
