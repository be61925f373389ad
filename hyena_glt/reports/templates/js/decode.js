// Codes of the page's data back to numbers. Browsers run on little-endian machines, as the codes are.

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Seven bits a byte, smallest first; products instead of shifts, so that 2^53 is the limit and not 2^31. */
function varints(text) {
  const bytes = bytesOf(text);
  const values = [];
  let value = 0;
  let scale = 1;
  for (const byte of bytes) {
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) {
      values.push(value);
      value = 0;
      scale = 1;
    }
  }
  return Float64Array.from(values);
}

/** Codes of `bits` bits to numbers; the largest code is NaN. */
function dequantised({ codes, low, high }, bits) {
  const bytes = bytesOf(codes);
  const raw = bits === 16 ? new Uint16Array(bytes.buffer) : bytes;
  const top = 2 ** bits - 1;
  const step = (high - low) / (top - 1);
  return Float64Array.from(raw, (code) => (code === top ? NaN : low + code * step));
}

/** Sums before each place, one longer than the values; NaN counts as nothing. */
function runningSums(values) {
  const sums = new Float64Array(values.length + 1);
  for (let i = 0; i < values.length; i++) sums[i + 1] = sums[i] + (values[i] || 0);
  return sums;
}

/** The number of entries of a sorted array that are at most `value`. */
function countUpTo(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function quantile(values, fraction) {
  const stride = Math.max(1, Math.floor(values.length / 20000));
  const known = values.filter((value, i) => i % stride === 0 && Number.isFinite(value)).sort();
  return known.length ? known[Math.round(fraction * (known.length - 1))] : NaN;
}
