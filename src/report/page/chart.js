// Curves: one chart per metric with a line per run; all charts share the controls and the pointer position.

const view = { smooth: 0.6, logY: false, x: "steps", hidden: new Set() };
const clocks = data.runs.map(({ clock }) => clock && decoded(clock));
const margin = { left: 54, right: 14, top: 10, bottom: 24 };

const charts = [...document.querySelectorAll("figure.chart")].map((figure) => {
  const { smooth, series } = data.charts[figure.dataset.chart];
  const plot = figure.querySelector(".plot");
  const both = series.some(({ held }) => held) && series.some(({ held }) => !held);
  const lines = series.map(({ run, held, line, means }) => ({
    run, held, ...decoded(line), means: means && decoded(means),
    color: data.runs.length === 1 && held ? 1 : run % 8,
    label: [data.runs.length > 1 ? data.runs[run].name : "", both ? (held ? "validation" : "training") : ""].filter(Boolean).join(", "),
  }));
  let zoom = null;
  let frame = null;

  function draw() {
    const width = Math.max(plot.clientWidth, 160);
    const height = figure.classList.contains("main") ? plot.clientHeight : 190;
    const visible = lines.filter((line) => !view.hidden.has(line.run)).map((line) => {
      const xs = places(line.run, line.steps);
      if (!smooth || line.held || view.smooth === 0 || line.values.length < 20) return { ...line, xs, soft: null };
      const from = line.means ?? line;
      const softXs = places(line.run, from.steps);
      return { ...line, xs, soft: { xs: softXs, values: smoothed(softXs, from.values, view.smooth) } };
    });
    const logX = view.x === "log";
    const [left, right] = zoom ?? extent(visible.flatMap((line) => line.xs).filter((x) => !logX || x > 0)) ?? [0, 1];
    const inside = visible.flatMap((line) => line.values.filter((value, at) => value !== null && line.xs[at] >= left && line.xs[at] <= right));
    const range = extent(inside) ?? [0, 1];
    const logY = view.logY && range[0] > 0;
    const pad = logY ? 1 : Math.max((range[1] - range[0]) * 0.04, Math.abs(range[1]) * 1e-3) || 1;
    const [low, high] = logY ? [range[0] / 1.03, range[1] * 1.03] : [range[0] - (range[0] === 0 ? 0 : pad), range[1] + pad];
    const x = scale(left, right > left ? right : left + 1, margin.left, width - margin.right, logX);
    const y = scale(low, high, height - margin.bottom, margin.top, logY);
    frame = { x, y, left, right, width, height, visible };

    const foot = height - margin.bottom;
    const parts = [`<svg viewBox="0 0 ${width} ${height}" role="img">`];
    for (const [tick, text] of labelled(y.ticks(Math.round(height / 50)))) {
      parts.push(`<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${px(y(tick))}" y2="${px(y(tick))}"/>`);
      parts.push(`<text x="${margin.left - 7}" y="${px(y(tick) + 4)}" text-anchor="end">${text}</text>`);
    }
    const most = Math.max(2, Math.round(width / 110));
    for (const [tick, text] of view.x === "time" ? timeTicks(left, right, most) : labelled(x.ticks(most))) {
      parts.push(`<text x="${px(x(tick))}" y="${height - 7}" text-anchor="middle">${text}</text>`);
    }
    parts.push(`<svg x="${margin.left}" y="0" width="${width - margin.left - margin.right}" height="${height}" viewBox="${margin.left} 0 ${width - margin.left - margin.right} ${height}">`);
    for (const line of visible) {
      const colour = `run-${line.color}${line.run > 7 ? " dashed" : ""}${line.held ? " held" : ""}`;
      parts.push(`<path class="line ${colour}${line.soft ? " raw" : ""}" d="${path(line.xs, line.values, x, y, logX, logY)}"/>`);
      if (line.soft) parts.push(`<path class="line ${colour}" d="${path(line.soft.xs, line.soft.values, x, y, logX, logY)}"/>`);
      if (line.values.length <= 40 && !line.soft && (line.held || !both)) {
        line.values.forEach((value, at) => {
          if (value !== null && (!logY || value > 0) && (!logX || line.xs[at] > 0)) parts.push(`<circle class="${colour}" cx="${px(x(line.xs[at]))}" cy="${px(y(value))}" r="2.5"/>`);
        });
      }
      line.values.forEach((value, at) => {
        if (value === null && (!logX || line.xs[at] > 0)) {
          const place = x(line.xs[at]);
          parts.push(`<path class="missing ${colour}" d="M${px(place - 4)} ${foot}h8l-4 -7z"/>`);
        }
      });
    }
    parts.push(`</svg><line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${foot}" y2="${foot}"/>`);
    parts.push(`<line class="cursor" y1="${margin.top}" y2="${foot}" visibility="hidden"/><rect class="drag" y="${margin.top}" height="${foot - margin.top}" visibility="hidden"/></svg>`);
    plot.innerHTML = parts.join("");
  }

  /** Moves the line under the pointer; `null` hides it. */
  function point(at) {
    const cursor = plot.querySelector(".cursor");
    if (!cursor) return;
    const shows = at !== null && at >= frame.left && at <= frame.right;
    cursor.setAttribute("visibility", shows ? "visible" : "hidden");
    if (shows) ["x1", "x2"].forEach((end) => cursor.setAttribute(end, px(frame.x(at))));
  }

  const pixelOf = (event) => {
    const box = plot.getBoundingClientRect();
    return Math.min(Math.max(((event.clientX - box.left) * frame.width) / box.width, margin.left), frame.width - margin.right);
  };

  let dragged = null;
  plot.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.pointerType !== "touch") dragged = pixelOf(event);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!frame) return;
    const pixel = pixelOf(event);
    const at = frame.x.invert(pixel);
    if (dragged !== null) {
      const box = plot.querySelector(".drag");
      box.setAttribute("visibility", "visible");
      box.setAttribute("x", px(Math.min(pixel, dragged)));
      box.setAttribute("width", px(Math.abs(pixel - dragged)));
    }
    const slack = (frame.right - frame.left) / 50;
    const reaches = (line) => at >= line.xs[0] - slack && at <= line.xs[line.xs.length - 1] + slack;
    const nearest = frame.visible.filter(reaches).map((line) => ({ line, index: nearestIndex(line.xs, at) }));
    if (nearest.length === 0) return tip.hide();
    const closest = nearest.reduce((a, b) => (Math.abs(a.line.xs[a.index] - at) <= Math.abs(b.line.xs[b.index] - at) ? a : b));
    const here = closest.line.xs[closest.index];
    charts.forEach((chart) => chart.point(here));
    const rows = nearest.map(({ line, index }) => {
      const value = line.values[index] === null ? "not a number" : shown(line.values[index]);
      const softValue = line.soft?.values[nearestIndex(line.soft.xs, here)] ?? null;
      const soft = softValue === null ? "" : `smoothed ${brief(softValue)}`;
      const other = line.xs[index] === here ? "" : `at ${placeText(line.xs[index])}`;
      return { className: `swatch run-${line.color}`, label: line.label, value, note: [soft, other].filter(Boolean).join(", ") };
    });
    tip.show(event, `${{ tokens: "tokens", time: "after" }[view.x] ?? "step"} ${placeText(here)}`, rows);
  });
  const leave = () => {
    dragged = null;
    plot.querySelector(".drag")?.setAttribute("visibility", "hidden");
    tip.hide();
    charts.forEach((chart) => chart.point(null));
  };
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("pointerup", (event) => {
    if (dragged === null) return;
    const [from, to] = [dragged, pixelOf(event)].sort((a, b) => a - b);
    leave();
    if (to - from < 6) return;
    zoom = [frame.x.invert(from), frame.x.invert(to)];
    draw();
  });
  plot.addEventListener("dblclick", () => {
    zoom = null;
    draw();
  });
  new ResizeObserver(() => { if (plot.clientWidth !== frame?.width || plot.clientHeight !== frame.height) draw(); }).observe(plot);
  return { draw, point, unzoom: () => { zoom = null; } };
});

/** The seconds that a run had taken at a step, interpolated between those that are known. */
function secondsAt({ steps, values }, step) {
  const near = nearestIndex(steps, step);
  const low = Math.max(steps[near] > step ? near - 1 : near, 0);
  const high = Math.min(low + 1, steps.length - 1);
  const part = steps[high] > steps[low] ? (step - steps[low]) / (steps[high] - steps[low]) : 0;
  return values[low] + part * (values[high] - values[low]);
}

/** Where a run's steps are on the horizontal axis. */
function places(run, steps) {
  if (view.x === "tokens") return steps.map((step) => step * data.runs[run].tokens_per_step);
  if (view.x === "time") return steps.map((step) => secondsAt(clocks[run], step));
  return steps;
}

const placeText = (place) => (view.x === "time" ? duration(place) : shown(place));

/** Decodes a line: steps instead of the differences between them. */
function decoded({ steps, values }) {
  let step = 0;
  return { values, steps: steps.map((more) => (step += more)) };
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** A line through the values, interrupted where there are none. */
function path(xs, values, x, y, logX, logY) {
  let [drawn, penDown] = ["", false];
  values.forEach((value, at) => {
    const there = value !== null && (!logY || value > 0) && (!logX || xs[at] > 0);
    if (there) drawn += `${penDown ? "L" : "M"}${px(x(xs[at]))} ${px(y(value))}`;
    penDown = there;
  });
  return drawn;
}

/** Exponential moving average; `weight` is the decay over the typical distance between values. */
function smoothed(xs, values, weight) {
  const gap = (xs[xs.length - 1] - xs[0]) / (xs.length - 1) || 1;
  let [sum, mass, before] = [0, 0, xs[0]];
  return values.map((value, at) => {
    if (value === null) return null;
    const keep = weight ** ((xs[at] - before) / gap);
    [sum, mass, before] = [sum * keep + value, mass * keep + 1, xs[at]];
    return sum / mass;
  });
}

/** Index of the value in the ascending `xs` nearest to `at`; -1 if there are none. */
function nearestIndex(xs, at) {
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - xs[low - 1] <= xs[low] - at ? low - 1 : Math.min(low, xs.length - 1);
}

const controls = document.getElementById("controls");
if (controls) {
  const redraw = () => charts.forEach((chart) => chart.draw());
  const slider = document.getElementById("smooth");
  slider.addEventListener("input", () => {
    view.smooth = Number(slider.value);
    slider.nextElementSibling.textContent = slider.value;
    redraw();
  });
  controls.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const { set, to, run } = button.dataset;
    if (run === undefined) {
      view[set] = set === "logY" ? to === "true" : to;
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
      if (set === "x") charts.forEach((chart) => chart.unzoom());
    } else {
      const shows = view.hidden.delete(Number(run));
      if (!shows) view.hidden.add(Number(run));
      button.setAttribute("aria-pressed", shows);
    }
    redraw();
  });
}
