// "chr1:1,000-2,000" or a gene name to a place; the place in the page's address.
// Places that people read are 1-based and inclusive.

const GENE_LIMIT = 12; // suggestions

/** Where a text points: { index, start, end, feature? } in 0-based positions of the track, or { problem }. */
function findPlace(text, view) {
  const wanted = text.trim();
  if (!wanted) return { problem: "Give a region such as chr1:1-1,000, a contig, or a gene." };
  const whole = view.payloads.findIndex((contig) => contig.name === wanted);
  if (whole >= 0) return { index: whole, start: 0, end: view.payloads[whole].length };
  const parts = /^(?:(.*):)?([\d,]+)(?:\s*(?:-|–|\.\.)\s*([\d,]+))?$/.exec(wanted);
  return (parts && regionPlace(parts, view)) || genePlace(wanted, view);
}

function regionPlace([, name, from, to], view) {
  const index = name === undefined ? view.index : view.payloads.findIndex((contig) => contig.name === name);
  if (index < 0) return null;
  const contig = view.payloads[index];
  const number = (text) => Number(text.replaceAll(",", "")) - contig.offset;
  const [start, end] = [number(from) - 1, number(to === undefined ? from : to)];
  if (start < 0 || end > contig.length || end <= start) {
    return { problem: `${contig.name} covers ${count(contig.offset + 1)} to ${count(contig.offset + contig.length)} here.` };
  }
  return to === undefined ? { index, start: start - 100, end: end + 100, at: start } : { index, start, end };
}

/** A gene by its name: exact, else by its beginning; the contig in view first. */
function genePlace(wanted, view) {
  const name = wanted.toLowerCase();
  const order = [view.index, ...view.payloads.keys()];
  for (const fits of [(text) => text === name, (text) => text.startsWith(name)]) {
    for (const index of order) {
      const { names } = view.payloads[index].features;
      const found = names.findIndex((text) => fits(text.toLowerCase()));
      if (found >= 0) return { index, ...featurePlace(view.payloads[index].features, found) };
    }
  }
  return { problem: `No contig, region or gene called “${wanted.slice(0, 80)}” in this page.` };
}

function featurePlace(columns, found) {
  const start = columns.steps.slice(0, found + 1).reduce((sum, step) => sum + step, 0);
  return { feature: true, start, end: start + columns.lengths[found] };
}

function goTo(place, view) {
  if (place.index !== view.index) view.select(place.index);
  if (place.feature) showFeature(view, place);
  else view.show(place.start, place.end);
  view.read(place.at === undefined ? null : place.at);
}

function listenToSearch(view) {
  const [form, field, message] = ["goto", "place", "message"].map(byId);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const place = findPlace(field.value, view);
    message.textContent = place.problem || "";
    if (!place.problem) goTo(place, view);
  });
  field.addEventListener("input", () => {
    byId("suggestions").replaceChildren(...suggestions(field.value, view).map((name) => Object.assign(element("option"), { value: name })));
  });
}

function suggestions(text, view) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const names = view.payloads[view.index].features.names.filter((name) => name.toLowerCase().startsWith(wanted));
  return [...new Set(names)].slice(0, GENE_LIMIT);
}

/** #region=chr1:100-200&at=150 as the view; returns whether the address names a place. */
function readAddress(view) {
  const fields = new URLSearchParams(location.hash.slice(1));
  if (!fields.has("region")) return false;
  const place = findPlace(fields.get("region"), view);
  byId("message").textContent = place.problem || "";
  if (place.problem) return false;
  goTo(place, view);
  if (/^\d+$/.test(fields.get("at") || "")) view.read(Number(fields.get("at")) - 1 - view.contig.offset);
  return true;
}

/** Keep the address in step with the view, at most a few times a second: browsers limit how often. */
function followAddress(view, browser) {
  let timer = 0;
  view.listeners.push(() => {
    clearTimeout(timer);
    timer = setTimeout(() => writeAddress(view, browser), 250);
  });
  window.addEventListener("hashchange", () => readAddress(view));
}

function writeAddress(view, browser) {
  const whole = view.index === 0 && view.span >= view.contig.length;
  const region = `${view.contig.name}:${browser.region(view.start, view.end).replaceAll(",", "").replace("–", "-")}`;
  const wanted = whole ? "" : `#region=${encodeURIComponent(region).replaceAll("%3A", ":")}`;
  if (wanted === location.hash || (whole && !location.hash)) return;
  history.replaceState(null, "", wanted || location.pathname + location.search);
}
