// The sequence browser: lanes drawn one below the other, and what lies under the pointer.

const PLACES = { curve: AXIS + 22, patches: AXIS + 22 + CURVE + 30, genes: AXIS + 22 + CURVE + 30 + PATCHES + 30 };

class Browser {
  constructor(view, data) {
    this.view = view;
    this.data = data;
    this.box = byId("browser");
    this.canvas = this.box.querySelector("canvas");
    this.pending = 0;
    view.listeners.push(() => this.schedule());
  }

  /** Draw once per frame, however many changes there were. */
  schedule() {
    if (!this.pending) this.pending = requestAnimationFrame(() => this.draw());
  }

  /** All that the lanes need to know. */
  state(context = null) {
    const { contig, start, end, fromZero } = this.view;
    const left = this.box.clientWidth < 520 ? 36 : 48;
    const threshold = contig.scored ? this.data.threshold : null;
    const rows = contig.features.rows;
    const height = rows ? PLACES.genes + rows * ROW : PLACES.patches + PATCHES + 4;
    const width = Math.max(this.box.clientWidth - left - 1, 50);
    return { context, contig, start, end, fromZero, left, width, height, plotEnd: height, threshold, scoreName: this.data.scoreName };
  }

  draw() {
    this.pending = 0;
    const d = this.state();
    this.canvas.style.height = `${d.height}px`;
    d.context = prepared(this.canvas, this.box.clientWidth, d.height);
    d.colours = palette();
    drawRuns(d);
    drawAxis(d);
    drawCurve(d, PLACES.curve);
    drawPatches(d, PLACES.patches);
    if (d.contig.features.rows) {
      laneLabel(d, PLACES.genes - 10, "Annotation, forward strand above reverse");
      drawGenes(d, PLACES.genes);
    }
    this.placeCursor(d);
    this.describe(d);
  }

  /** The line under the tracks: what one pixel stands for. */
  describe(d) {
    const { contig, start, end } = d;
    const pixel = basesPerPixel(d);
    const stretch = pixel < 1.5 ? `${decimals(1 / pixel, 1)} pixels per base` : `one pixel covers ${count(pixel)} bases`;
    const missing = contig.isFine(end) || pixel >= contig.width ? "" : ` The curve here shows bins of ${count(contig.width)} bases.`;
    byId("shown").textContent = `${contig.name}: ${this.region(start, end)}, ${plural(Math.round(end - start), "base")}; ${stretch}.${missing}`;
  }

  region(start, end) {
    const { offset } = this.view.contig;
    return `${count(Math.floor(start) + offset + 1)}–${count(Math.ceil(end) + offset)}`;
  }

  positionAt(x) {
    const d = this.state();
    return clamp(d.start + ((x - d.left) / d.width) * (d.end - d.start), d.start, Math.max(d.start, d.end - 1e-6));
  }

  placeCursor(d) {
    const { cursor } = this.view;
    const [line, mark, tip] = [".cursor", ".mark", ".tip"].map((name) => this.box.querySelector(name));
    line.hidden = mark.hidden = tip.hidden = cursor === null || cursor < d.start - 1 || cursor >= d.end;
    if (line.hidden) return;
    const x = xOf(d, Math.max(cursor + (basesPerPixel(d) < 1 ? 0.5 : 0), d.start));
    line.style.left = `${Math.round(x)}px`;
    this.placeMark(d, mark);
    const [heading, rows] = describePosition(d, cursor);
    showTip(tip, heading, rows, x, PLACES.curve + CURVE - 58);
    this.lastReading = asSentence(heading, rows);
  }

  /** Shade the patch under the cursor. */
  placeMark(d, mark) {
    const patch = d.contig.patchAt(this.view.cursor);
    mark.hidden = patch < 0;
    if (patch < 0) return;
    const from = clamp(xOf(d, d.contig.edges[patch]), d.left, d.left + d.width);
    const to = clamp(xOf(d, d.contig.edges[patch + 1]), d.left, d.left + d.width);
    Object.assign(mark.style, { left: `${from}px`, width: `${Math.max(to - from, 1)}px`, top: `${AXIS}px`, height: `${PLACES.patches + PATCHES - AXIS}px` });
  }
}

/** Heading and rows of the tooltip: one base when bases can be told apart, else the stretch of a pixel. */
function describePosition(d, position) {
  const single = basesPerPixel(d) < 2;
  const end = single ? position + 1 : Math.min(Math.floor(position + basesPerPixel(d)), d.contig.length);
  const shown = position + d.contig.offset + 1;
  const heading = single ? `Position ${count(shown)}` : `Positions ${count(shown)}–${count(end + d.contig.offset)}`;
  const genes = d.contig.featuresAt(position).slice(0, 4).map((f) => `${f.name} (${f.kind}${f.strand === "." ? "" : `, ${f.strand}`})`);
  const rows = [...curveRows(d, position, end), ...patchRows(d, position, end), ...genes.map((gene) => ["Feature", gene])];
  return [heading, d.contig.isAmbiguous(position) ? [["Sequence", "ambiguous (N)"], ...rows] : rows];
}

function curveRows(d, position, end) {
  const value = d.contig.curve(position, end);
  if (!value || !d.contig.scored) return [];
  const fine = d.contig.isFine(end);
  if (end - position === 1 && fine) return [["Entropy", `${decimals(value[1], 4)} nats`]];
  const note = fine || end - position >= d.contig.width ? "Entropy" : `Entropy, ${count(d.contig.width)}-base bin`;
  return [[note, `${decimals(value[1], 3)} (${decimals(value[0], 2)}–${decimals(value[2], 2)}) nats`]];
}

function patchRows(d, position, end) {
  const { contig, scoreName } = d;
  const [first, last] = [contig.patchAt(position), contig.patchAt(end - 1)];
  const name = scoreName[0].toUpperCase() + scoreName.slice(1);
  const score = [name, `${decimals(contig.score(position, end), 2)} nats per base`];
  if (first >= 0 && first === last) {
    const place = `${count(contig.edges[first] + contig.offset + 1)}–${count(contig.edges[first + 1] + contig.offset)}`;
    const length = contig.edges[first + 1] - contig.edges[first];
    const own = [name, `${decimals(contig.scores[first], 2)} nats per base`];
    return [["Patch", `${count(first + 1)} of ${count(contig.patches)}`], ["Length", `${plural(length, "base")} (${place})`], own];
  }
  if (first >= 0 && last >= 0) {
    const mean = (contig.edges[last + 1] - contig.edges[first]) / (last - first + 1);
    return [["Patches", `${count(first + 1)}–${count(last + 1)}`], ["Mean length", `${decimals(mean, 1)} bases`], score];
  }
  const [from, to] = [Math.min(position, contig.length - contig.width), Math.max(end, position + contig.width)];
  const density = (1000 * contig.starts(Math.max(from, 0), Math.min(to, contig.length))) / (Math.min(to, contig.length) - Math.max(from, 0));
  return [["Patches per kb", decimals(density, 1)], score];
}
