// One contig: curve, scores and boundaries of any stretch, from single bases where they are kept, else from bins.
// Positions are 0-based on the track; `offset` is added only where a person reads them.

class Contig {
  constructor(payload) {
    Object.assign(this, { name: payload.name, length: payload.length, offset: payload.offset });
    Object.assign(this, { patches: payload.patches, scored: payload.scored, runs: payload.runs, notes: payload.notes });
    this.decodeBins(payload.bins);
    this.decodePatches(payload.detail);
    this.bases = payload.bases ? dequantised(payload.bases, 16) : new Float64Array(0);
    this.features = laneFeatures(payload.features);
    this.highestOfAll = finiteOr(quantile(this.highest, 1), 1);
    this.lowEnds = this.lowEndsByZoom();
    this.scoreRange = rangeOfScores(this.scores.length ? this.scores : this.binScore);
  }

  decodeBins(bins) {
    this.width = bins.width;
    this.lowest = dequantised(bins.lowest, 16);
    this.mean = dequantised(bins.mean, 16);
    this.highest = dequantised(bins.highest, 16);
    this.binScore = dequantised(bins.score, 8);
    this.startsBefore = runningSums(varints(bins.starts));
  }

  decodePatches(detail) {
    this.edges = runningSums(varints(detail.lengths)); // starts of the patches kept, and the end of the last
    this.scores = dequantised(detail.scores, 8);
    this.covered = detail.covered;
    this.scoreBefore = runningSums(this.scores.map((score, i) => score * (this.edges[i + 1] - this.edges[i])));
    this.knownBefore = runningSums(this.scores.map((score, i) => (score >= 0 ? this.edges[i + 1] - this.edges[i] : 0)));
  }

  /** Low end of the curve by the logarithm of the bases per pixel: means of longer stretches vary less. */
  lowEndsByZoom() {
    const ends = [[0, finiteOr(quantile(this.lowest, 0.03), 0)]];
    for (let means = this.mean, bases = this.width; means.length > 50; bases *= 2) {
      const low = quantile(means, 0.002);
      ends.push([Math.log2(bases), finiteOr(low - 0.6 * (quantile(means, 0.998) - low), 0)]);
      means = Float64Array.from({ length: means.length >> 1 }, (_, i) => (means[2 * i] + means[2 * i + 1]) / 2);
    }
    return ends;
  }

  /** The low end of the vertical axis at a zoom, between the two ends known beside it. */
  lowEnd(basesPerPixel) {
    const zoom = Math.log2(Math.max(1, basesPerPixel));
    const after = this.lowEnds.findIndex(([place]) => place > zoom);
    if (after < 0) return this.lowEnds.at(-1)[1];
    const [[from, low], [to, high]] = [this.lowEnds[after - 1], this.lowEnds[after]];
    return low + ((zoom - from) / (to - from)) * (high - low);
  }

  /** Number of the patch over a position, or -1 where single patches are not kept. */
  patchAt(position) {
    return position < this.covered ? countUpTo(this.edges, position) - 1 : -1;
  }

  /** [lowest, mean, highest] of the curve over [from, to), or null where nothing is known. */
  curve(from, to) {
    const fine = to - from < 4 * this.width;
    const first = Math.floor(from);
    if (fine && this.scored && to <= this.bases.length) return summary(this.bases, this.bases, this.bases, first, Math.ceil(to));
    if (fine && !this.scored && to <= this.covered) {
      return summary(this.scores, this.scores, this.scores, this.patchAt(first), this.patchAt(Math.ceil(to) - 1) + 1);
    }
    return summary(this.lowest, this.mean, this.highest, Math.floor(from / this.width), Math.ceil(to / this.width));
  }

  /** Mean score per base over [from, to). */
  score(from, to) {
    if (to <= this.covered) {
      return (this.upTo(this.scoreBefore, to) - this.upTo(this.scoreBefore, from)) / (this.upTo(this.knownBefore, to) - this.upTo(this.knownBefore, from));
    }
    const found = summary(this.binScore, this.binScore, this.binScore, Math.floor(from / this.width), Math.ceil(to / this.width));
    return found ? found[1] : NaN;
  }

  /** A running sum at any position: it is linear within a patch. */
  upTo(sums, position) {
    const patch = Math.min(countUpTo(this.edges, position), this.scores.length) - 1;
    const share = (position - this.edges[patch]) / (this.edges[patch + 1] - this.edges[patch]);
    return sums[patch] + share * (sums[patch + 1] - sums[patch]);
  }

  /** Patches that start in [from, to); from bins it is an estimate, bins cut at an edge count in part. */
  starts(from, to) {
    if (to <= this.covered) return this.startsUpTo(to) - this.startsUpTo(from);
    return this.binStarts(to) - this.binStarts(from);
  }

  startsUpTo(position) {
    return Math.min(countUpTo(this.edges, Math.ceil(position) - 1), this.scores.length);
  }

  binStarts(position) {
    const bin = Math.min(Math.floor(position / this.width), this.mean.length - 1);
    const end = Math.min((bin + 1) * this.width, this.length);
    const share = (position - bin * this.width) / (end - bin * this.width);
    return this.startsBefore[bin] + share * (this.startsBefore[bin + 1] - this.startsBefore[bin]);
  }

  /** Whether the curve of [from, to) is made of single bases or patches rather than bins. */
  isFine(to) {
    return this.scored ? to <= this.bases.length : to <= this.covered;
  }

  isAmbiguous(position) {
    return this.runs.some(([start, end]) => start <= position && position < end);
  }

  featuresAt(position) {
    return this.features.filter((feature) => feature.start <= position && position < feature.end);
  }
}

/** [lowest, mean, highest] over the places [first, end) that are known; the mean is of the places. */
function summary(lowest, mean, highest, first, end) {
  let low = Infinity;
  let high = -Infinity;
  let sum = 0;
  let known = 0;
  for (let i = Math.max(first, 0), stop = Math.min(Math.max(end, first + 1), mean.length); i < stop; i++) {
    if (!(mean[i] === mean[i])) continue;
    if (lowest[i] < low) low = lowest[i];
    if (highest[i] > high) high = highest[i];
    sum += mean[i];
    known++;
  }
  return known ? [low, sum / known, high] : null;
}

const finiteOr = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);

/** Ends of the colour scale: nearly all scores lie between them. */
function rangeOfScores(scores) {
  const [low, high] = [quantile(scores, 0.02), quantile(scores, 0.98)];
  return Number.isFinite(low) ? [low, Math.max(high, low + 1e-3)] : [0, 1];
}
