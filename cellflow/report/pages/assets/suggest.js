"use strict";
// The list of suggested images: outlines on and off, copied, downloaded.
(() => {
  const data = document.getElementById("list-data");
  if (!data) return;
  const { csv, paths } = JSON.parse(data.textContent);
  const say = (text) => { document.getElementById("said").textContent = text; };

  const outlines = document.getElementById("outlines");
  outlines.addEventListener("click", () => {
    const shown = outlines.getAttribute("aria-pressed") !== "true";
    outlines.setAttribute("aria-pressed", String(shown));
    document.querySelector("ol.cards").classList.toggle("without-outlines", !shown);
  });

  document.getElementById("copy-list").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(paths);
      say(`${paths.split("\n").length} paths copied`);
    } catch {
      say("This browser does not let pages copy: the list is in chosen.txt beside this page.");
    }
  });

  document.getElementById("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
    link.download = "suggest.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say("suggest.csv downloaded");
  });
})();
