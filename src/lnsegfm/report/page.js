"use strict";
(() => {
  const cases = () => [...document.querySelectorAll("details.case")];
  const say = (text) => { document.getElementById("said").textContent = text; };

  // tables: a button in each heading sorts; what has no number comes last either way
  const key = (row, column) => row.cells[column].dataset.v;
  const compare = (a, b, words, sign) => {
    if (words) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (Number(a) - Number(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const words = "words" in head.dataset;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(key(a, column), key(b, column), words, up ? 1 : -1));
        table.tBodies[0].append(...rows);
        say(`Sorted by ${button.textContent.trim()}, ${up ? "ascending" : "descending"}.`);
      });
    });
  }

  // cases
  const show = (item) => {
    item.open = true;
    item.querySelector("summary").focus({ preventScroll: true });
    item.scrollIntoView({ block: "start" });
  };
  const current = () => cases().indexOf(document.activeElement?.closest?.("details.case"));
  const step = (by) => {
    const all = cases();
    if (!all.length) return;
    const at = current();
    const item = all[Math.min(Math.max(at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by, 0), all.length - 1)];
    item.querySelector("summary").focus({ preventScroll: true });
    item.scrollIntoView({ block: "start" });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#case-']");
    const item = link && document.getElementById(link.hash.slice(1))?.closest("details.case");
    if (!item) return;
    event.preventDefault();
    show(item);
  });

  const keys = document.getElementById("keys");
  const contours = document.getElementById("contours");
  const toggle = () => {
    const off = document.body.classList.toggle("plain");
    contours?.setAttribute("aria-pressed", String(!off));
    say(off ? "Contours are hidden." : "Contours are shown.");
  };
  const all = (open) => cases().forEach((item) => { item.open = open; });
  const tools = document.getElementById("tools");
  if (tools) {
    tools.hidden = false;
    contours.addEventListener("click", toggle);
    document.getElementById("open").addEventListener("click", () => all(true));
    document.getElementById("close").addEventListener("click", () => all(false));
    document.getElementById("help").addEventListener("click", () => keys.showModal());
  }
  keys.querySelector("button").addEventListener("click", () => keys.close());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    const summary = document.activeElement?.matches?.("details.case > summary");
    const on = {
      j: () => step(1),
      k: () => step(-1),
      ArrowDown: () => summary && step(1),
      ArrowUp: () => summary && step(-1),
      o: () => { const item = cases()[current()]; if (item) item.open = !item.open; else return false; },
      c: toggle,
      "?": () => keys.showModal(),
    }[event.key];
    if (on && on() !== false) event.preventDefault();
  });

  // paper shows every case
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = cases().filter((item) => !item.open);
    all(true);
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((item) => { item.open = false; });
  });
})();
