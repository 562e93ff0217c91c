"use strict";
// What every page does: its list of sections, tables that sort, charts, commands to copy, loading again.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // An id as cards show it, as `shorten` in Python does: its middle left out where it is long.
  window.cellflowShort = (text, length = 32) => {
    const half = Math.floor((length - 3) / 2);
    return text.length <= length ? text : `${text.slice(0, half)}...${text.slice(half + 3 - length)}`;
  };

  function listSections() {
    const list = document.createElement("ul");
    for (const heading of document.querySelectorAll("main > section > h2")) {
      const link = document.createElement("a");
      link.href = "#" + heading.parentElement.id;
      link.textContent = heading.textContent;
      const item = document.createElement("li");
      item.append(link);
      list.append(item);
    }
    const nav = document.querySelector("nav[data-sections]");
    if (list.children.length > 1) nav.append(list); else nav.remove();
  }

  function compare(a, b) {
    // What is unknown comes last in both directions.
    if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity;
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const rows = [...body.rows];
      const numeric = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : numeric;  // numbers: the largest first
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const order = compare(value(a), value(b));
        return Number.isFinite(order) && down ? -order : order;
      });
      body.append(...rows);
    }));
  }

  // The colours of a chart are those of the page, which change with the system's.
  function dressed(layout) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    const all = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
      margin: { l: 55, r: 15, t: 15, b: 45 }, legend: { orientation: "h", y: -0.2 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      ...layout,
    };
    const axes = new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))]);
    for (const name of axes) {
      all[name] = { ...axis, ...layout[name] };
      if (all[name].title) all[name].title = { font: { size: 13 }, ...all[name].title };
    }
    return all;
  }

  // Colours that are dim on a dark ground, and what stands for them there.
  const BRIGHTER = { "#0072B2": "#3f9bd8", "#555555": "#a0abb8" };

  function draw(place) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const reviver = (_, value) => (dark && BRIGHTER[value]) || value;
    const { traces, layout } = JSON.parse(document.getElementById(place.dataset.chart).textContent, reviver);
    const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "sendDataToCloud"] };
    return Plotly.react(place, traces, dressed(layout), options).catch((error) => console.error(error));
  }

  function drawCharts() {
    // A chart is drawn when it comes near: pages with many of them open at once.
    const places = [...document.querySelectorAll("[data-chart]")];
    if (!places.length) return;
    const drawn = new Set();
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting || drawn.has(target)) continue;
        drawn.add(target);
        watch.unobserve(target);
        draw(target);
      }
    }, { rootMargin: "400px" });
    places.forEach((place) => watch.observe(place));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
    addEventListener("beforeprint", () => places.forEach(draw));
  }

  function copyable(button) {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
        button.textContent = "Press Ctrl+C";
      }
    });
  }

  function loadAgain() {
    // Not while somebody reads another place than the top, or has marked something.
    const seconds = Number(document.body.dataset.refresh);
    if (seconds > 0) setInterval(() => { if (scrollY === 0 && !document.querySelector("[data-unsaved]")) location.reload(); }, 1000 * seconds);
  }

  listSections();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("[data-copy]").forEach(copyable);
  drawCharts();
  loadAgain();
})();
