// Mouse, touch and keys on the sequence browser.

const STEP = 1.6; // zoom of one key press or button

function listenToPointer(browser) {
  const { box, view } = browser;
  const pointers = new Map();
  const place = (event) => event.clientX - box.getBoundingClientRect().left;

  box.addEventListener("wheel", (event) => wheel(event, browser, place(event)), { passive: false });
  box.addEventListener("dblclick", (event) => enlarge(event, browser, place(event)));
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    box.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    box.classList.add("dragging");
  });
  box.addEventListener("pointermove", (event) => {
    const x = place(event);
    if (!pointers.has(event.pointerId)) return view.read(browser.positionAt(x));
    const before = [...pointers.values()];
    pointers.set(event.pointerId, x);
    if (pointers.size === 1) slide(browser, before[0], x);
    else if (pointers.size === 2) pinch(browser, before, [...pointers.values()]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    box.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      box.classList.toggle("dragging", pointers.size > 0);
      if (event.pointerType !== "mouse" && name === "pointerup") view.read(browser.positionAt(place(event)));
    });
  }
  box.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !pointers.size && view.read(null));
  box.addEventListener("keydown", (event) => pressKey(event, browser));
}

/** Zoom around the pointer; sideways scrolling moves. A whole contig leaves outward scrolling to the page. */
function wheel(event, browser, x) {
  const { view } = browser;
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    return view.move((event.deltaX * view.span) / browser.box.clientWidth);
  }
  if (event.deltaY > 0 && view.span >= view.contig.length) return undefined;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 24 : 1;
  return view.zoom(Math.exp(clamp(event.deltaY * lines, -240, 240) * 0.0022), browser.positionAt(x));
}

function slide(browser, from, to) {
  if (from === to) return;
  const { view } = browser;
  view.cursor = null;
  view.move(((from - to) * view.span) / browser.state().width);
}

function pinch(browser, before, after) {
  const apart = ([a, b]) => Math.max(Math.abs(a - b), 8);
  browser.view.zoom(apart(before) / apart(after), browser.positionAt((after[0] + after[1]) / 2));
}

/** Double-click: to the gene under the pointer, else three times closer. */
function enlarge(event, browser, x) {
  const y = event.clientY - browser.box.getBoundingClientRect().top;
  const position = browser.positionAt(x);
  const row = Math.floor((y - PLACES.genes) / ROW);
  const gene = browser.view.contig.featuresAt(position).find((feature) => feature.row === row);
  if (gene) showFeature(browser.view, gene);
  else browser.view.zoom(1 / 3, position);
}

function showFeature(view, feature) {
  const room = (feature.end - feature.start) * 0.1 + 10;
  view.show(feature.start - room, feature.end + room);
}

function pressKey(event, browser) {
  const { view } = browser;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const actions = {
    "+": () => view.zoom(1 / STEP),
    "=": () => view.zoom(1 / STEP),
    ArrowUp: () => view.zoom(1 / STEP),
    "-": () => view.zoom(STEP),
    ArrowDown: () => view.zoom(STEP),
    "0": () => view.show(0, view.contig.length),
    Home: () => view.move(-view.contig.length),
    End: () => view.move(view.contig.length),
    Escape: () => view.read(null),
  };
  const action = side ? () => (event.shiftKey ? readNext(browser, side) : view.move((side * view.span) / 5)) : actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

/** Move the reading place by a base, or by a pixel where that is more; say what is there. */
function readNext(browser, side) {
  const { view } = browser;
  const step = Math.max(1, Math.round(basesPerPixel(browser.state())));
  view.read(view.cursor === null ? (view.start + view.end) / 2 : view.cursor + side * step);
  if (view.cursor < view.start) view.move(-view.span / 2);
  if (view.cursor >= view.end) view.move(view.span / 2);
  browser.draw();
  byId("readout").textContent = browser.lastReading;
}
