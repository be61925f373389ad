// Everything wired together. A failure is shown on the page, not only in the console.

function start() {
  const data = JSON.parse(byId("data").textContent);
  const view = data.contigs.length ? new View(data.contigs) : null;
  const charts = [data.histogram && new Histogram(data.histogram), data.scatter && new Scatter(data.scatter)].filter(Boolean);
  listenToTable(view);
  if (view) charts.push(startBrowser(view, data));
  for (const chart of charts) chart.draw();
  watchPage(() => {
    if (view) view.tell();
    for (const chart of charts) chart.draw();
  });
  document.documentElement.dataset.ready = "true";
}

function startBrowser(view, data) {
  const browser = new Browser(view, data);
  new Overview(view, browser);
  listenToPointer(browser);
  listenToSearch(view);
  listenToButtons(view);
  view.listeners.push(() => showContig(view));
  if (!readAddress(view)) view.select(0);
  followAddress(view, browser);
  return browser;
}

function listenToButtons(view) {
  byId("contig").addEventListener("change", (event) => view.select(Number(event.target.value)));
  byId("zoom-in").addEventListener("click", () => view.zoom(1 / STEP));
  byId("zoom-out").addEventListener("click", () => view.zoom(STEP));
  byId("zoom-all").addEventListener("click", () => view.show(0, view.contig.length));
  byId("from-zero").addEventListener("click", (event) => {
    view.fromZero = !view.fromZero;
    event.currentTarget.setAttribute("aria-pressed", String(view.fromZero));
    view.tell();
  });
}

/** What belongs to the contig rather than to the stretch of it in view. */
function showContig(view) {
  const { contig } = view;
  if (byId("notes").dataset.index === String(view.index)) return;
  byId("notes").dataset.index = String(view.index);
  byId("contig").value = String(view.index);
  byId("notes").replaceChildren(...contig.notes.map((note) => element("li", note)));
  byId("kinds").replaceChildren(...legendOfKinds(contig.features));
  const [low, high] = contig.scoreRange;
  byId("scale-low").textContent = decimals(low, 2);
  byId("scale-high").textContent = decimals(high, 2);
  drawScale(byId("scale"));
}

function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = shadeOf(x, [0, canvas.width - 1]).fill;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

/** Draw again when the page's width or its colours change; on paper as wide as the paper, in light colours. */
function watchPage(redraw) {
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    redraw();
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    redraw();
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    redraw();
  });
}

try {
  start();
} catch (problem) {
  byId("failure").textContent = `The charts could not be drawn: ${problem.message}. The table and the provenance are complete.`;
  byId("failure").hidden = false;
  throw problem;
}
