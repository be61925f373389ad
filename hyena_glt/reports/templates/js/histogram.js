// Patch lengths: bars of logarithmic height, and the geometric distribution of the same mean as a line.

const MARGIN = { left: 58, right: 14, top: 12, bottom: 42 };

class Histogram {
  constructor(data) {
    this.data = data;
    this.figure = byId("histogram");
    this.svg = this.figure.querySelector("svg");
    this.tip = this.figure.querySelector(".tip");
    this.svg.addEventListener("pointermove", (event) => this.hover(event));
    this.svg.addEventListener("pointerleave", () => this.unhover());
  }

  draw() {
    const { counts, expected, limit, mean, longer, expected_longer: expectedLonger, patches } = this.data;
    this.width = Math.max(this.svg.clientWidth, 200);
    this.height = this.svg.clientHeight || 260;
    this.slot = (this.width - MARGIN.left - MARGIN.right) / limit;
    this.top = Math.log10(Math.max(...counts, ...expected, 10));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren(...this.axes(limit), this.bars(counts), ...this.expectation(expected, mean));
    const beyond = expectedLonger < 10 ? decimals(expectedLonger, 1) : count(expectedLonger);
    const rest = `${plural(longer, "patch is", "patches are")} longer than ${count(limit)} and not drawn (geometric: ${beyond}).`;
    const all = `${plural(patches, "patch", "patches")}, mean ${decimals(mean, 2)} bases (dotted).`;
    byId("histogram-note").textContent = longer ? `${all} ${rest}` : all;
  }

  make(name, attributes, text) {
    const made = document.createElementNS(this.svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  x(length) {
    return MARGIN.left + (length - 0.5) * this.slot;
  }

  /** Height of a count; half a patch is the floor, so that one patch can be seen. */
  y(number) {
    const floor = Math.log10(0.5);
    const share = (Math.log10(Math.max(number, 0.5)) - floor) / (this.top * 1.04 - floor);
    return this.height - MARGIN.bottom - share * (this.height - MARGIN.top - MARGIN.bottom);
  }

  axes(limit) {
    const made = [];
    for (let power = 0; power <= this.top * 1.04; power++) {
      const y = Math.round(this.y(10 ** power)) + 0.5;
      made.push(this.make("line", { class: "rule", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y }));
      made.push(this.make("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, count(10 ** power)));
    }
    const bottom = this.height - MARGIN.bottom;
    made.push(this.make("line", { class: "base", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: bottom + 0.5, y2: bottom + 0.5 }));
    const step = Math.max(1, niceStep(50 / this.slot));
    for (let length = step === 1 ? 1 : step; length <= limit; length += step) {
      made.push(this.make("text", { x: this.x(length), y: bottom + 17, "text-anchor": "middle" }, count(length)));
    }
    const middle = (MARGIN.left + this.width - MARGIN.right) / 2;
    made.push(this.make("text", { x: middle, y: this.height - 5, "text-anchor": "middle" }, "patch length, bases"));
    return made;
  }

  bars(counts) {
    const bars = this.make("g", { class: "bars" });
    const gap = this.slot > 4 ? 1 : 0;
    counts.forEach((number, i) => {
      const [y, bottom] = [this.y(number), this.height - MARGIN.bottom];
      if (number) bars.append(this.make("rect", { x: this.x(i + 1) - this.slot / 2 + gap / 2, y, width: this.slot - gap, height: bottom - y, "data-length": i + 1 }));
    });
    return bars;
  }

  expectation(expected, mean) {
    const points = expected.flatMap((value, i) => (value >= 0.5 ? [`${this.x(i + 1).toFixed(1)},${this.y(value).toFixed(1)}`] : []));
    const x = this.x(mean);
    return [
      this.make("line", { class: "mean", x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom }),
      this.make("polyline", { class: "expected", points: points.join(" ") }),
    ];
  }

  hover(event) {
    const box = this.svg.getBoundingClientRect();
    const length = Math.floor((event.clientX - box.left - MARGIN.left) / this.slot) + 1;
    this.unhover();
    if (length < 1 || length > this.data.limit) return;
    const number = this.data.counts[length - 1];
    const bar = this.svg.querySelector(`[data-length="${length}"]`);
    if (bar) bar.classList.add("on");
    const share = `${decimals((100 * number) / this.data.patches, 2)} %`;
    const rows = [["Patches", count(number)], ["Share", share], ["Geometric", decimals(this.data.expected[length - 1], 1)]];
    showTip(this.tip, plural(length, "base"), rows, event.clientX - box.left, event.clientY - box.top);
  }

  unhover() {
    this.tip.hidden = true;
    for (const bar of this.svg.querySelectorAll(".on")) bar.classList.remove("on");
  }
}
