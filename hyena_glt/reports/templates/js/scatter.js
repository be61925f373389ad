// Embeddings as points; the pointer and the arrow keys tell which is which.

const RADIUS = 4.5;
const NEAR = 14; // pixels
const NAMED = 16; // so few points carry their label

class Scatter {
  constructor(data) {
    this.data = data;
    this.values = new Float32Array(bytesOf(data.points).buffer);
    this.figure = byId("scatter");
    this.canvas = this.figure.querySelector("canvas");
    this.tip = this.figure.querySelector(".tip");
    this.chosen = -1;
    this.figure.addEventListener("pointermove", (event) => this.hover(event));
    this.figure.addEventListener("pointerleave", () => this.choose(-1));
    this.figure.addEventListener("keydown", (event) => this.step(event));
    byId("groups").replaceChildren(...data.groups.map((name, group) => this.legendEntry(name, group)));
  }

  legendEntry(name, group) {
    const entry = element("span");
    const dot = element("i", "", "dot");
    dot.style.background = GROUPS[group];
    entry.append(dot, element("bdi", name));
    return entry;
  }

  draw() {
    const [width, height] = [this.figure.clientWidth, this.canvas.clientHeight];
    const d = { context: prepared(this.canvas, width, height), colours: palette() };
    this.places = this.layout(width, height);
    this.axes(d, width, height);
    this.places.forEach(([x, y], i) => this.dot(d, x, y, i));
    if (this.places.length <= NAMED) this.names(d, width);
    if (this.chosen >= 0) this.dot(d, ...this.places[this.chosen], this.chosen);
  }

  /** Points to pixels, with room around them. */
  layout(width, height) {
    const axis = (which, from, to) => {
      const values = this.values.filter((_, i) => i % 2 === which);
      const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
      return (value) => (high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2);
    };
    const [x, y] = [axis(0, 48, width - 30), axis(1, height - 50, 22)];
    return this.data.labels.map((_, i) => [x(this.values[2 * i]), y(this.values[2 * i + 1])]);
  }

  axes(d, width, height) {
    const { context, colours } = d;
    const [first, second] = (this.data.explained || []).map((share) => ` (${decimals(100 * share, 1)} % of variance)`);
    context.strokeStyle = colours.line;
    context.strokeRect(10.5, 8.5, width - 21, height - 40);
    context.fillStyle = colours.muted;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillText(`first component${first || ""}`, width / 2, height - 16);
    context.save();
    context.translate(22, (height - 32) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(`second component${second || ""}`, 0, 0);
    context.restore();
  }

  dot({ context, colours }, x, y, i) {
    context.beginPath();
    context.arc(x, y, i === this.chosen ? RADIUS + 2 : RADIUS, 0, 2 * Math.PI);
    context.globalAlpha = i === this.chosen || this.places.length < 200 ? 0.92 : 0.6;
    context.fillStyle = this.data.groups.length ? GROUPS[this.data.group[i]] : colours.accent;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = i === this.chosen ? colours.ink : colours.card;
    context.lineWidth = i === this.chosen ? 1.5 : 0.75;
    context.stroke();
  }

  names({ context, colours }, width) {
    context.fillStyle = colours.ink;
    this.places.forEach(([x, y], i) => {
      const right = x + 10 + context.measureText(this.data.labels[i]).width < width - 12;
      context.textAlign = right ? "left" : "right";
      context.fillText(this.data.labels[i], right ? x + 9 : x - 9, y);
    });
  }

  hover(event) {
    const box = this.figure.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const distances = this.places.map((place) => Math.hypot(place[0] - x, place[1] - y));
    const nearest = distances.reduce((best, distance, i) => (distance < distances[best] ? i : best), 0);
    this.choose(distances[nearest] <= NEAR ? nearest : -1);
  }

  step(event) {
    const side = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!side) return;
    event.preventDefault();
    const total = this.places.length;
    this.choose((this.chosen + side + total) % total);
    byId("scatter-readout").textContent = asSentence(this.data.labels[this.chosen], this.rows(this.chosen));
  }

  rows(i) {
    const group = this.data.groups.length ? [["Group", this.data.groups[this.data.group[i]]]] : [];
    return [...group, ["Components", `${this.values[2 * i].toPrecision(3)}, ${this.values[2 * i + 1].toPrecision(3)}`]];
  }

  choose(i) {
    if (i === this.chosen) return;
    this.chosen = i;
    this.draw();
    this.tip.hidden = i < 0;
    if (i >= 0) showTip(this.tip, this.data.labels[i], this.rows(i), ...this.places[i]);
  }
}
