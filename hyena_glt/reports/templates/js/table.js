// The contig table: sorted by a click on a heading, linked to the browser by a click on a name.

function listenToTable(view) {
  const table = byId("contigs");
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => sortTable(table, headings, column)));
  table.tBodies[0].addEventListener("click", (event) => {
    const button = event.target.closest("[data-contig]");
    if (!button || !view) return;
    view.select(Number(button.dataset.contig));
    byId("sequence").scrollIntoView({ block: "start" });
  });
  if (view) view.listeners.push(() => markRow(table, view));
}

/** Numbers start with the largest, names with the first; a second click turns the order round. */
function sortTable(table, headings, column) {
  const numeric = headings[column].classList.contains("n");
  const before = headings[column].getAttribute("aria-sort");
  const falling = before ? before === "ascending" : numeric;
  headings.forEach((heading) => heading.removeAttribute("aria-sort"));
  headings[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value;
  const names = new Intl.Collator("en", { numeric: true });
  const order = numeric ? (a, b) => value(a) - value(b) : (a, b) => names.compare(value(a), value(b));
  const rows = [...table.tBodies[0].rows].sort((a, b) => (falling ? -order(a, b) : order(a, b)));
  table.tBodies[0].append(...rows);
}

function markRow(table, view) {
  for (const button of table.querySelectorAll("[data-contig]")) {
    button.closest("tr").toggleAttribute("aria-current", Number(button.dataset.contig) === view.index);
  }
}
