// Words and numbers, and elements made without any HTML text.

const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const count = (value) => integers.format(value);
const decimals = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const plural = (value, word, words = `${word}s`) => `${count(value)} ${value === 1 ? word : words}`;
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** An axis label for a base: 1,200 or 120 kb or 3.4 Mb, as fine as the step between labels. */
function placeLabel(position, step, longest) {
  const [unit, size] = step >= 1e5 && longest >= 2e6 ? ["Mb", 1e6] : step >= 1000 ? ["kb", 1e3] : ["", 1];
  const digits = Math.max(0, Math.ceil(Math.log10(size / step) - 1e-9));
  const value = (position / size).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return unit ? `${value} ${unit}` : value;
}

/** The smallest of 1, 2, 5, 10, 20, ... (times a power of ten) that is at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].find((factor) => factor * power >= least * (1 - 1e-9)) * power;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Fill a tooltip: a heading and rows of [term, value]; then place it beside a point of its box. */
function showTip(tip, heading, rows, x, y) {
  tip.firstElementChild.textContent = heading;
  const list = tip.lastElementChild;
  list.replaceChildren(...rows.flatMap(([term, value]) => [element("dt", term), element("dd", value)]));
  tip.hidden = false;
  const box = tip.parentElement.getBoundingClientRect();
  const left = x + 16 + tip.offsetWidth <= box.width ? x + 16 : x - 16 - tip.offsetWidth;
  tip.style.left = `${clamp(left, 0, Math.max(0, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${clamp(y - tip.offsetHeight / 2, 0, Math.max(0, box.height - tip.offsetHeight))}px`;
}

const asSentence = (heading, rows) => `${heading}. ${rows.map(([term, value]) => `${term} ${value}`).join(". ")}.`;
