// The whole contig in one strip, with a window that can be dragged, resized by its edges, or set by a click.

const EDGE = 7; // pixels from an edge of the window that resize it

class Overview {
  constructor(view, browser) {
    this.view = view;
    this.browser = browser;
    this.box = byId("overview");
    this.canvas = this.box.querySelector("canvas");
    this.window = this.box.querySelector(".window");
    this.drawn = null;
    this.grip = null;
    view.listeners.push(() => this.update());
    this.box.addEventListener("pointerdown", (event) => this.press(event));
    this.box.addEventListener("pointermove", (event) => this.drag(event));
    this.box.addEventListener("pointerup", () => (this.grip = null));
    this.box.addEventListener("pointercancel", () => (this.grip = null));
  }

  update() {
    const key = `${this.view.index} ${this.box.clientWidth} ${colour("page")} ${this.view.fromZero}`;
    if (key !== this.drawn) this.draw();
    this.drawn = key;
    const { start, end, contig } = this.view;
    this.window.style.left = `${(100 * start) / contig.length}%`;
    this.window.style.width = `${(100 * (end - start)) / contig.length}%`;
  }

  draw() {
    const { contig, fromZero } = this.view;
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    const context = prepared(this.canvas, width, height);
    const d = { contig, context, colours: palette(), left: 0, width, start: 0, end: contig.length, threshold: null, fromZero };
    context.fillStyle = d.colours.page;
    context.fillRect(0, 0, width, height);
    context.fillStyle = d.colours.gap;
    for (const [start, end] of contig.runs) context.fillRect(xOf(d, start), 0, Math.max(xOf(d, end) - xOf(d, start), 1), height);
    const columns = curveColumns(d).filter(([, value]) => value);
    const means = columns.map(([, value]) => value[1]);
    const [low, high] = [quantile(means, 0.002), quantile(means, 0.998)];
    const y = (value) => height - 6 - clamp((value - low) / Math.max(high - low, 1e-6), -0.05, 1.05) * (height - 13);
    context.fillStyle = d.colours.band;
    for (const [x, value] of columns) context.fillRect(x, y(value[1]), 1, height - y(value[1]));
    strokeMean(d, curveColumns(d), { y });
  }

  baseAt(event) {
    const box = this.box.getBoundingClientRect();
    return clamp((event.clientX - box.left) / box.width, 0, 1) * this.view.contig.length;
  }

  press(event) {
    const base = this.baseAt(event);
    const near = (EDGE / this.box.clientWidth) * this.view.contig.length;
    const { start, end, span } = this.view;
    this.box.setPointerCapture(event.pointerId);
    if (span > 3 * near && Math.abs(base - start) < near) this.grip = { fixed: end };
    else if (span > 3 * near && Math.abs(base - end) < near) this.grip = { fixed: start };
    else this.grip = { inside: start <= base && base <= end ? base - start : span / 2 };
    this.drag(event);
    event.preventDefault();
  }

  drag(event) {
    if (!this.grip) return;
    const base = this.baseAt(event);
    const { fixed, inside } = this.grip;
    if (fixed === undefined) this.view.move(base - inside - this.view.start);
    else this.view.show(Math.min(base, fixed), Math.max(base, fixed));
  }
}
