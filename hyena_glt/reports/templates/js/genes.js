// Gene lanes: arrows on the forward strand above, on the reverse strand below, features without strand last.

const KINDS = [
  ["coding", "gene, coding", /^(gene|CDS|mRNA|transcript|polypeptide|protein.*)$/i],
  ["rna", "RNA", /RNA|ribozyme/i],
  ["pseudo", "pseudogene", /pseudo/i],
  ["repeat", "repeat, mobile", /repeat|transpos|mobile|insertion|satellite|LTR|LINE|SINE/i],
  ["other", "other feature", /./],
];
const ROW = 19;
const MOST_ROWS = 4; // per strand

/** Columns to objects, each with its row. */
function laneFeatures(columns) {
  let start = 0;
  const features = columns.names.map((name, i) => {
    start += columns.steps[i];
    const kind = columns.kinds[columns.kind[i]];
    const strand = columns.strands[i];
    const colour = kind.startsWith("pseudo") ? "pseudo" : KINDS.find(([, , pattern]) => pattern.test(kind))[0];
    return { name: name || kind, kind, colour, strand, start, end: start + columns.lengths[i], row: 0 };
  });
  const used = ["+", "-", "."].reduce((rows, strand) => rows + packRows(features.filter((f) => f.strand === strand), rows), 0);
  features.rows = used;
  return features;
}

/** Give each feature (sorted by start) the first row that is free; what finds none shares the last. */
function packRows(features, firstRow) {
  const ends = [];
  for (const feature of features) {
    const free = ends.findIndex((end) => end <= feature.start);
    const row = free >= 0 ? free : Math.min(ends.length, MOST_ROWS - 1);
    ends[row] = Math.max(ends[row] || 0, feature.end);
    feature.row = firstRow + row;
  }
  return ends.length;
}

function drawGenes(d, top) {
  const { context } = d;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const feature of d.contig.features) {
    if (feature.end <= d.start || feature.start >= d.end) continue;
    const from = xOf(d, Math.max(feature.start, d.start));
    const to = Math.max(xOf(d, Math.min(feature.end, d.end)), from + 1);
    const y = top + feature.row * ROW;
    context.fillStyle = d.colours[feature.colour];
    drawArrow(context, from, to, y, ROW - 4, arrowEnd(d, feature));
    nameGene(d, feature.name, from, to, y + (ROW - 4) / 2 + 0.5);
  }
}

/** The strand whose arrow head is in view. */
function arrowEnd(d, feature) {
  if (feature.strand === "+") return feature.end <= d.end ? "+" : ".";
  if (feature.strand === "-") return feature.start >= d.start ? "-" : ".";
  return ".";
}

function drawArrow(context, from, to, y, height, end) {
  const head = end === "." || to - from < 4 ? 0 : Math.min(7, (to - from) / 2);
  const [left, right] = [end === "-" ? from + head : from, end === "+" ? to - head : to];
  context.beginPath();
  context.moveTo(left, y);
  context.lineTo(right, y);
  if (end === "+" && head) context.lineTo(to, y + height / 2);
  context.lineTo(right, y + height);
  context.lineTo(left, y + height);
  if (end === "-" && head) context.lineTo(from, y + height / 2);
  context.closePath();
  context.fill();
}

function nameGene({ context, colours }, name, from, to, y) {
  const room = to - from - 16;
  if (room < 12 || context.measureText(name).width > room) return;
  context.fillStyle = colours["gene-ink"];
  context.fillText(name, (from + to) / 2, y);
}

/** Legend of the kinds that the contig has. */
function legendOfKinds(features) {
  return KINDS.filter(([kind]) => features.some((feature) => feature.colour === kind)).map(([kind, words]) => {
    const entry = element("span");
    entry.append(element("i", "", kind), words);
    return entry;
  });
}
