// The lanes of the sequence browser. Each takes the drawing state `d`: context, colours, contig, start, end, left, width.

const AXIS = 24;
const CURVE = 200;
const PATCHES = 54;
const BLOCK = 5; // pixels from which single patches are drawn

const xOf = (d, position) => d.left + ((position - d.start) / (d.end - d.start)) * d.width;
const basesPerPixel = (d) => (d.end - d.start) / d.width;

function drawAxis(d) {
  const { context, colours, contig } = d;
  const step = Math.max(1, niceStep(((d.end - d.start) / d.width) * 86));
  const first = Math.ceil((d.start + contig.offset + 1) / step) * step;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let position = first; position <= d.end + contig.offset; position += step) {
    const x = xOf(d, position - contig.offset - 0.5);
    context.fillStyle = colours.grid;
    context.fillRect(Math.round(x), AXIS - 5, 1, d.plotEnd - AXIS + 5);
    const label = placeLabel(position, step, contig.offset + contig.length);
    const half = context.measureText(label).width / 2;
    if (x - half < 0 || x + half > d.left + d.width + 8) continue;
    context.fillStyle = colours.muted;
    context.fillText(label, x, AXIS / 2 - 2);
  }
}

/** Ambiguous runs, over all lanes. */
function drawRuns(d) {
  d.context.fillStyle = d.colours.gap;
  for (const [start, end] of d.contig.runs) {
    if (end <= d.start || start >= d.end) continue;
    const [from, to] = [xOf(d, Math.max(start, d.start)), xOf(d, Math.min(end, d.end))];
    d.context.fillRect(from, AXIS, Math.max(to - from, 1), d.plotEnd - AXIS);
  }
}

function scaleOf(d, top, height) {
  const [low, high] = curveLimits(d);
  return { low, high, y: (value) => top + height - ((clamp(value, low, high) - low) / (high - low)) * height };
}

/** Ends of the vertical axis: what the contig's curve spans at this zoom, with room for the threshold. */
function curveLimits(d) {
  const threshold = d.threshold === null ? [] : [d.threshold];
  const high = Math.max(d.contig.highestOfAll, ...threshold);
  const low = d.fromZero ? 0 : Math.min(d.contig.lowEnd(basesPerPixel(d)), ...threshold, high - 0.01);
  const room = (high - low) * 0.06;
  return [d.fromZero ? 0 : Math.max(0, low - room), high + room];
}

function drawCurve(d, top) {
  const scale = scaleOf(d, top, CURVE);
  drawLevels(d, scale, top);
  const columns = curveColumns(d);
  fillBand(d, columns, scale);
  if (d.threshold !== null && basesPerPixel(d) < 1) fillAbove(d, columns, scale);
  strokeMean(d, columns, scale);
  if (d.threshold !== null) drawThreshold(d, scale);
  laneLabel(d, top - 9, `${d.contig.scored ? "Entropy" : d.scoreName}, nats per base`);
}

/** The curve at every pixel: [x, [lowest, mean, highest] or null]. */
function curveColumns(d) {
  const step = basesPerPixel(d);
  return Array.from({ length: Math.ceil(d.width) }, (_, i) => {
    const from = d.start + i * step;
    return [d.left + i, d.contig.curve(from, Math.min(from + step, d.end))];
  });
}

function drawLevels(d, scale, top) {
  const { context, colours } = d;
  const step = niceStep((scale.high - scale.low) / 5);
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let level = Math.ceil(scale.low / step) * step; level <= scale.high; level += step) {
    const y = Math.round(scale.y(level));
    context.fillStyle = colours.grid;
    context.fillRect(d.left, y, d.width, 1);
    context.fillStyle = colours.muted;
    if (y > top + 4) context.fillText(level.toFixed(digits), d.left - 7, y);
  }
}

/** From lowest to highest; fainter the more bases share a pixel, since the range then says less. */
function fillBand(d, columns, scale) {
  d.context.fillStyle = d.colours.band;
  d.context.globalAlpha = clamp(1.4 - Math.log10(Math.max(basesPerPixel(d), 1)) / 4, 0.45, 1);
  for (const [x, value] of columns) {
    if (!value) continue;
    const upper = scale.y(value[2]);
    d.context.fillRect(x, upper, 1, scale.y(value[0]) - upper);
  }
  d.context.globalAlpha = 1;
}

function fillAbove(d, columns, scale) {
  const base = scale.y(d.threshold);
  d.context.fillStyle = d.colours.alert;
  d.context.globalAlpha = 0.3;
  for (const [x, value] of columns) if (value && value[1] > d.threshold) d.context.fillRect(x, scale.y(value[1]), 1, base - scale.y(value[1]));
  d.context.globalAlpha = 1;
}

function strokeMean(d, columns, scale) {
  const { context } = d;
  context.strokeStyle = d.colours.accent;
  context.lineWidth = 1.4;
  context.lineJoin = "round";
  context.beginPath();
  let open = false;
  for (const [x, value] of columns) {
    if (value) context[open ? "lineTo" : "moveTo"](x + 0.5, scale.y(value[1]));
    open = Boolean(value);
  }
  context.stroke();
}

function drawThreshold(d, scale) {
  const y = Math.round(scale.y(d.threshold)) + 0.5;
  d.context.strokeStyle = d.colours.alert;
  d.context.lineWidth = 1.25;
  d.context.setLineDash([6, 4]);
  d.context.beginPath();
  d.context.moveTo(d.left, y);
  d.context.lineTo(d.left + d.width, y);
  d.context.stroke();
  d.context.setLineDash([]);
}

function laneLabel(d, y, text) {
  d.context.fillStyle = d.colours.muted;
  d.context.textAlign = "left";
  d.context.textBaseline = "middle";
  d.context.fillText(text, d.left, y);
}

/** Single patches where they are wide enough, else colours per pixel over the density of boundaries. */
function drawPatches(d, top) {
  const mean = d.contig.length / Math.max(1, d.contig.patches);
  const wide = mean / basesPerPixel(d) >= BLOCK;
  const fineEnd = wide ? clamp(d.contig.covered, d.start, d.end) : d.start;
  if (fineEnd > d.start) drawBlocks(d, top, fineEnd);
  if (fineEnd < d.end) drawStrip(d, top, fineEnd);
  laneLabel(d, top - 9, wide && fineEnd === d.end ? "Patches, with their length" : "Patches, and patches per kb below");
}

function drawBlocks(d, top, fineEnd) {
  const { context, contig } = d;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = contig.patchAt(d.start); i < contig.scores.length && contig.edges[i] < fineEnd; i++) {
    const from = Math.max(xOf(d, contig.edges[i]), d.left);
    const to = Math.min(xOf(d, contig.edges[i + 1]), d.left + d.width);
    const shade = shadeOf(contig.scores[i], contig.scoreRange) || { fill: d.colours.gap, ink: d.colours.ink };
    context.fillStyle = shade.fill;
    context.fillRect(from, top, Math.max(to - from - 1, 1), PATCHES);
    drawBoundary(d, contig.edges[i]);
    blockLabel(context, shade.ink, contig.edges[i + 1] - contig.edges[i], (from + to) / 2, top + PATCHES / 2, to - from);
  }
}

/** A hairline through the curve where a patch starts, fainter where they are dense. */
function drawBoundary(d, position) {
  if (position < d.start) return;
  const room = d.contig.length / d.contig.patches / basesPerPixel(d);
  d.context.globalAlpha = clamp(room / 40, 0.14, 0.5);
  d.context.fillStyle = d.colours.faint;
  d.context.fillRect(Math.round(xOf(d, position)) - 1, PLACES.curve, 1, CURVE);
  d.context.globalAlpha = 1;
}

function blockLabel(context, ink, length, x, y, room) {
  const text = count(length);
  if (room < 7 * text.length + 5) return;
  context.fillStyle = ink;
  context.fillText(text, x, y);
}

function drawStrip(d, top, from) {
  const step = basesPerPixel(d);
  for (let x = Math.floor(xOf(d, from)); x < d.left + d.width; x++) {
    const start = Math.max(d.start + (x - d.left) * step, from);
    const shade = shadeOf(d.contig.score(start, Math.min(start + step, d.end)), d.contig.scoreRange);
    if (!shade) continue;
    d.context.fillStyle = shade.fill;
    d.context.fillRect(x, top, 1, 14);
  }
  drawDensity(d, top + 18, PATCHES - 18, from);
}

/** Patches per kb, over stretches of a few pixels and at least some patches. */
function drawDensity(d, top, height, from) {
  const step = Math.max(3, (12 * d.contig.length) / Math.max(1, d.contig.patches) / basesPerPixel(d));
  const stretch = step * basesPerPixel(d);
  const values = [];
  for (let start = Math.floor(from / stretch) * stretch; start < d.end; start += stretch) {
    const [a, b] = [Math.max(start, 0), Math.min(start + stretch, d.contig.length)];
    if (b - a > 0) values.push([Math.max(a, from), Math.min(b, d.end), (1000 * d.contig.starts(a, b)) / (b - a)]);
  }
  const most = Math.max(1e-9, ...values.map((value) => value[2]));
  d.context.fillStyle = d.colours.faint;
  d.context.globalAlpha = 0.6;
  for (const [a, b, value] of values) {
    const share = (value / most) * height;
    const [left, right] = [Math.round(xOf(d, a)), Math.round(xOf(d, b))];
    d.context.fillRect(left, top + height - share, right - left, share);
  }
  d.context.globalAlpha = 1;
  d.context.fillStyle = d.colours.muted;
  d.context.textAlign = "right";
  d.context.textBaseline = "top";
  d.context.fillText(most.toFixed(most < 10 ? 1 : 0), d.left - 7, top - 1);
}
