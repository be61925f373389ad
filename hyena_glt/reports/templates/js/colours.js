// Colours of the scheme in force, and the scale of the scores (viridis: even steps, safe for colour-blind eyes).

const VIRIDIS = [
  [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
];
const GROUPS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7f00", "#8a8f95"];
const SHADES = 128;

const viridis = Array.from({ length: SHADES }, (_, shade) => {
  const place = (shade / (SHADES - 1)) * (VIRIDIS.length - 1);
  const [before, share] = [Math.min(Math.floor(place), VIRIDIS.length - 2), place - Math.min(Math.floor(place), VIRIDIS.length - 2)];
  const mixed = VIRIDIS[before].map((part, i) => Math.round(part + share * (VIRIDIS[before + 1][i] - part)));
  return { fill: `rgb(${mixed})`, ink: mixed[0] * 0.3 + mixed[1] * 0.59 + mixed[2] * 0.11 > 130 ? "#10181f" : "#f4f7fa" };
});

/** Fill and readable ink for a score, or null for none. */
function shadeOf(score, [low, high]) {
  if (!Number.isFinite(score)) return null;
  return viridis[Math.round(clamp((score - low) / (high - low), 0, 1) * (SHADES - 1))];
}

/** A colour variable of the style sheet, as it is now. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function palette() {
  const names = ["page", "card", "ink", "muted", "faint", "line", "grid", "accent", "band", "alert", "gap", "gene-ink"];
  return Object.fromEntries([...names, ...KINDS.map(([kind]) => kind)].map((name) => [name, colour(name)]));
}

/** A canvas as large as its place on the page and sharp on dense screens; returns its context in CSS pixels. */
function prepared(canvas, width, height) {
  const density = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
  return context;
}
