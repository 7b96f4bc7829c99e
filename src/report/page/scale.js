// Shared helpers: the data, scales from values to pixels, and number formatting.

const data = JSON.parse(document.getElementById("data").textContent);
for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

/** Maps the range from `low` to `high`, or their logarithms, to the pixels from `from` to `to`. */
function scale(low, high, from, to, log) {
  const measure = log ? Math.log10 : (value) => value;
  const start = measure(low);
  const factor = (to - from) / (measure(high) - start || 1);
  const place = (value) => from + (measure(value) - start) * factor;
  place.invert = (pixel) => {
    const value = start + (pixel - from) / factor;
    return log ? 10 ** value : value;
  };
  place.ticks = (most) => (log ? logTicks(low, high, most) : linearTicks(low, high, most));
  return place;
}

function linearTicks(low, high, most, step = roundStep((high - low) / most || 1)) {
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12) + step * 1e-9; n += 1) ticks.push(n * step);
  return ticks;
}

/** The least of 1, 2 and 5 times a power of ten that is not below `rough`. */
function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

function logTicks(low, high, most) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  for (const digits of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = first; power <= last; power += 1) {
      for (const digit of digits) {
        const tick = Number(`${digit}e${power}`);
        if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick);
      }
    }
    if (ticks.length <= most + 1 && ticks.length > 1) return ticks;
    if (ticks.length < 2) return linearTicks(low, high, most).filter((tick) => tick > 0);
  }
  const every = Math.ceil((last - first) / most);
  return Array.from({ length: most + 1 }, (_, n) => 10 ** (first + n * every)).filter((tick) => tick >= low && tick <= high);
}

/** A number with up to six digits. */
function shown(value) {
  const size = Math.abs(value);
  if (size >= 1e15 || (size < 1e-3 && size > 0)) return value.toExponential(3).replace(/\.?0+e/, "e");
  return Number(value.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 6 });
}

/** A number with few digits, for an axis. */
function brief(value, digits = 4, thousands = 1e4) {
  const size = Math.abs(value);
  const [from, unit] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([least]) => size >= Math.max(least, thousands)) ?? [1, ""];
  if (unit) return `${Number((value / from).toPrecision(digits))}${unit}`;
  if (size < 1e-2 && size > 0) return Number(value.toPrecision(digits)).toExponential();
  return String(Number(value.toPrecision(digits)));
}

/** Ticks of an axis with their labels: as few digits as distinguish them. */
function labelled(ticks) {
  const thousands = Math.max(...ticks.map(Math.abs), 0) >= 1e4 ? 1e3 : 1e4;
  for (let digits = 3; ; digits += 1) {
    const texts = ticks.map((tick) => brief(tick, digits, thousands));
    if (digits > 8 || new Set(texts).size === ticks.length) return ticks.map((tick, index) => [tick, texts[index]]);
  }
}

const clockUnits = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const clockSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Ticks of an axis of seconds, at round times, with their labels. */
function timeTicks(low, high, most) {
  const rough = (high - low) / most;
  const step = clockSteps.find((seconds) => seconds >= rough);
  const ticks = step ? linearTicks(low, high, most, step) : linearTicks(low / 86400, high / 86400, most).map((days) => days * 86400);
  return ticks.map((tick) => [tick, duration(tick)]);
}

/** A time in its two largest units: `1 h 30 min`. */
function duration(seconds) {
  const unit = clockUnits.findIndex(([size]) => Math.round(seconds) >= size);
  if (unit < 0 || unit === clockUnits.length - 1) return `${Number(seconds.toPrecision(2))} s`;
  const [[large, name], [small, part]] = clockUnits.slice(unit, unit + 2);
  const parts = Math.round(seconds / small);
  const rest = parts % (large / small);
  return `${Math.floor(parts / (large / small))} ${name}${rest ? ` ${rest} ${part}` : ""}`;
}

/** Pixel coordinates as text, to a tenth of a pixel. */
const px = (pixels) => pixels.toFixed(1);

/** The tooltip that follows the pointer. User text is inserted as text, never as HTML. */
const tip = (() => {
  const box = document.body.appendChild(document.createElement("div"));
  box.className = "tip";
  box.hidden = true;
  return {
    hide: () => { box.hidden = true; },
    show: (event, title, rows) => {
      box.replaceChildren();
      const hasNotes = rows.some(({ note }) => note);
      box.appendChild(document.createElement("b")).textContent = title;
      for (const { className, label, value, note } of rows) {
        const row = box.appendChild(document.createElement("div"));
        if (className) row.appendChild(document.createElement("i")).className = className;
        row.appendChild(document.createElement("span")).textContent = label;
        row.appendChild(document.createElement("b")).textContent = value;
        if (hasNotes) row.appendChild(document.createElement("small")).textContent = note;
      }
      box.hidden = false;
      const { offsetWidth: width, offsetHeight: height } = box;
      const beside = event.clientX + 16 + width > window.innerWidth ? event.clientX - 16 - width : event.clientX + 16;
      const below = Math.min(event.clientY + 12, window.innerHeight - height - 4);
      box.style.transform = `translate(${Math.max(4, beside)}px, ${Math.max(4, below)}px)`;
    },
  };
})();
