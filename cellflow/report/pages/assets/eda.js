"use strict";
// Pictures that a click makes large, with arrow keys from one to the next, and outlines that can be switched off.
(() => {
  const dialog = document.getElementById("zoom");
  const title = document.getElementById("zoom-title");
  const stage = dialog.querySelector("[data-stage]");
  const why = dialog.querySelector("[data-why]");
  let shown = null;

  const gallery = (view) => {
    const name = view.closest("[data-gallery]").dataset.gallery;
    return [...document.querySelectorAll(`[data-gallery="${name}"] .view`)];
  };

  function show(view) {
    shown = view;
    const image = view.querySelector("img");
    const frame = document.createElement("div");
    frame.className = "frame";
    frame.style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
    const large = image.cloneNode();
    large.decoding = "sync";
    frame.append(large, view.querySelector("svg").cloneNode(true));
    stage.replaceChildren(frame);
    const text = (part) => view.querySelector(part)?.textContent ?? "";
    const others = gallery(view);
    const id = view.querySelector(".id [title]")?.title ?? text(".id");
    title.textContent = [id, text(".about")].filter(Boolean).join(", ") + ` (${others.indexOf(view) + 1} of ${others.length})`;
    why.textContent = text(".why");
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const others = gallery(shown);
    show(others[(others.indexOf(shown) + by + others.length) % others.length]);
  }

  function switchOutlines() {
    const off = document.body.classList.toggle("no-outlines");
    document.querySelectorAll("[data-outlines]").forEach((button) => button.setAttribute("aria-pressed", String(!off)));
  }

  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => show(button.closest(".view")));
  }
  document.querySelectorAll("[data-outlines]").forEach((button) => button.addEventListener("click", switchOutlines));
  dialog.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    stage.replaceChildren();
    shown?.querySelector("button").focus();
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.key === "o" || event.key === "O") switchOutlines();
    else if (dialog.open && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      event.preventDefault();
      step(event.key === "ArrowRight" ? 1 : -1);
    }
  });
})();
