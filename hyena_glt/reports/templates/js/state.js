// What is looked at: a contig and a stretch of it. Everything that draws listens.

const LEAST = 24; // bases; closer nothing more can be seen

class View {
  constructor(contigs) {
    this.payloads = contigs;
    this.decoded = new Map();
    this.listeners = [];
    this.index = 0;
    this.start = 0;
    this.end = contigs[0].length;
    this.cursor = null; // position that is read, or null
    this.fromZero = false;
  }

  get contig() {
    if (!this.decoded.has(this.index)) this.decoded.set(this.index, new Contig(this.payloads[this.index]));
    return this.decoded.get(this.index);
  }

  get span() {
    return this.end - this.start;
  }

  tell() {
    for (const listener of this.listeners) listener();
  }

  select(index) {
    this.index = index;
    this.cursor = null;
    this.show(0, this.payloads[index].length);
  }

  /** Show [start, end), moved and widened as little as needed to lie on the contig. */
  show(start, end) {
    const length = this.payloads[this.index].length;
    const span = clamp(end - start, Math.min(LEAST, length), length);
    const middle = (start + end) / 2;
    this.start = clamp(middle - span / 2, 0, length - span);
    this.end = this.start + span;
    this.tell();
  }

  /** Zoom by a factor (below 1: closer) around a position that stays where it is. */
  zoom(factor, around = (this.start + this.end) / 2) {
    const length = this.payloads[this.index].length;
    const span = clamp(this.span * factor, Math.min(LEAST, length), length);
    const start = clamp(around - ((around - this.start) / this.span) * span, 0, length - span);
    this.show(start, start + span);
  }

  move(bases) {
    const start = clamp(this.start + bases, 0, this.payloads[this.index].length - this.span);
    this.show(start, start + this.span);
  }

  read(position) {
    this.cursor = position === null ? null : clamp(Math.floor(position), 0, this.contig.length - 1);
    this.tell();
  }
}
