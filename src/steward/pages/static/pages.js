// Theme, times and links for pages inside Airflow's frame. Without it they are light or dark as the system is, and in UTC.
"use strict";

const root = document.documentElement;
const outside = (() => {
  try {
    return window.parent !== window && window.parent.document;
  } catch {
    return null; // the frame of another site, which the policy refuses anyway
  }
})();

// Airflow keeps its colour mode as a class of its <html>, and remembers it under "theme".
function followTheme() {
  const shown = outside && ["dark", "light"].find((name) => outside.documentElement.classList.contains(name));
  const theme = shown || localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  else delete root.dataset.theme;
}

followTheme();
window.addEventListener("storage", followTheme);
if (outside) {
  new MutationObserver(followTheme).observe(outside.documentElement, { attributes: true, attributeFilter: ["class"] });
}

// The viewer's zone in the text, UTC on hover: the title is there already.
function localise(time) {
  const moment = new Date(time.dateTime);
  if (Number.isNaN(moment.valueOf()) || "plain" in time.dataset) return;
  const year = moment.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  const parts = { day: "numeric", month: "short", year, hour: "numeric", minute: "2-digit" };
  time.textContent = new Intl.DateTimeFormat(navigator.language, parts).format(moment);
}

// The frame is a sandbox: a link that leaves it is followed by the page around it.
function leave(event) {
  const link = event.target.closest("a[target]");
  if (!outside || !link) return;
  event.preventDefault();
  const twin = outside.createElement("a");
  twin.href = link.href;
  twin.target = link.target === "_blank" ? "_blank" : "_self";
  twin.rel = "noopener";
  twin.click();
}

// A table of links is one stop of the Tab key; arrows move inside it. What is newest, at its right end, is shown first.
function walk(table) {
  const links = [...table.querySelectorAll("td a")];
  const newest = table.rows[1]?.querySelector("td:last-child a");
  links.forEach((link) => { link.tabIndex = link === newest ? 0 : -1; });
  table.parentElement.scrollLeft = table.scrollWidth;
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !step) return;
    event.preventDefault();
    let [row, column] = [cell.parentElement.rowIndex, cell.cellIndex];
    for (;;) {
      [row, column] = [row + step[0], column + step[1]];
      const next = table.rows[row]?.cells[column];
      if (!next) return;
      const link = next.querySelector("a");
      if (!link) continue;
      links.forEach((other) => { other.tabIndex = other === link ? 0 : -1; });
      link.focus();
      return;
    }
  });
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("time[datetime]").forEach(localise);
  document.querySelectorAll("table[data-grid]").forEach(walk);
  document.addEventListener("click", leave);
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    setTimeout(() => event.target.querySelectorAll("button:enabled").forEach((button) => {
      button.disabled = true;
      button.dataset.sent = "";
    }));
  });
});
window.addEventListener("pageshow", () => {
  document.querySelectorAll("button[data-sent]").forEach((button) => { button.disabled = false; });
});
