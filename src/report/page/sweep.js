// A sweep: parallel coordinates over parameters and metric, and a scatter plot of each parameter against the metric.

if (data.sweep) {
  const { metric, direction, best, trials } = data.sweep;
  const maximize = direction === "maximize";
  const names = [...new Set(trials.flatMap(({ values }) => Object.keys(values)))];
  const distinct = (axis) => new Set(trials.map((trial) => JSON.stringify(axis.value(trial)))).size;
  const axes = [
    ...names.map((name) => ({ name, value: ({ values }) => values[name] ?? null })).filter((axis) => distinct(axis) > 1),
    { name: metric, value: ({ value }) => value ?? null },
  ];
  for (const axis of axes) {
    const values = trials.map(axis.value).filter((value) => value !== null);
    axis.words = values.some((value) => typeof value !== "number") || values.length === 0
      ? [...new Set(values.map(String))].sort((a, b) => a.localeCompare(b, "en", { numeric: true })) : null;
    axis.extent = axis.words ? null : extent(values);
    axis.log = !axis.words && axis.extent[0] > 0 && axis.extent[1] / axis.extent[0] >= 10;
  }
  const ranked = trials.filter(({ value }) => value != null).sort((a, b) => (maximize ? b.value - a.value : a.value - b.value));
  const rank = new Map(ranked.map((trial, place) => [trial, 1 - place / Math.max(ranked.length - 1, 1)]));
  const tint = (trial) => (rank.has(trial) ? `color-mix(in oklab, var(--best) ${Math.round(100 * rank.get(trial) ** 2)}%, var(--rest))` : "var(--missing)");
  const brushes = new Map();
  let over = null;

  /** Position of a trial on an axis from pixel `from` to pixel `to`; trials without a value are at `none`. */
  const placer = (axis, from, to, none) => {
    const slots = axis.words?.length;
    const pad = (to - from) * (slots ? 0.5 / slots : 0.03);
    const place = axis.words ? scale(0, Math.max(slots - 1, 1), slots > 1 ? from + pad : (from + to) / 2, to - pad, false)
      : scale(axis.extent[0], axis.extent[1], axis.extent[0] === axis.extent[1] ? (from + to) / 2 : from + pad, to - pad, axis.log);
    const at = (trial) => {
      const value = axis.value(trial);
      return value === null ? none : place(axis.words ? axis.words.indexOf(String(value)) : value);
    };
    const distinctValues = axis.words ?? [...new Set(trials.map(axis.value).filter((value) => value !== null))].sort((a, b) => a - b);
    const few = !axis.words && axis.name !== metric && distinctValues.length <= 8;
    const ticks = axis.words ? axis.words.map((word, index) => [place(index), word])
      : labelled((few ? distinctValues : place.ticks(8)).filter((tick) => tick >= axis.extent[0] && tick <= axis.extent[1])).map(([tick, text]) => [place(tick), text]);
    return { at, ticks };
  };
  const passes = (trial) => [...brushes].every(([axis, [low, high]]) => { const at = axis.at(trial); return at >= low && at <= high; });
  const rowsOf = (trial) => axes.map((axis) => {
    const value = axis.value(trial);
    return { label: axis.name, value: value === null ? "–" : typeof value === "number" ? shown(value) : String(value) };
  });
  const escape = (text) => text.replace(/[&<>"]/g, (mark) => `&#${mark.charCodeAt(0)};`);
  const cut = (text, most) => escape(text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const figure = document.getElementById("coordinates");
  const plot = figure.querySelector(".plot");
  let size = null;

  function coordinates() {
    const width = Math.max(plot.clientWidth, 90 * axes.length);
    const [height, top, foot] = [340, 34, 300];
    size = { width, height, top, foot };
    const gap = (width - 120) / Math.max(axes.length - 1, 1);
    axes.forEach((axis, index) => {
      axis.x = axes.length > 1 ? 60 + index * gap : width / 2;
      Object.assign(axis, placer(axis, foot, top, foot + 22));
    });
    const parts = [`<svg viewBox="0 0 ${width} ${height}" style="min-width:${90 * axes.length}px">`];
    const order = [...trials].sort((a, b) => (rank.get(a) ?? -1) - (rank.get(b) ?? -1));
    for (const trial of order) {
      const d = axes.map((axis, index) => `${index ? "L" : "M"}${px(axis.x)} ${px(axis.at(trial))}`).join("");
      parts.push(`<path class="trial${trial.run === best ? " first" : ""}" data-trial="${trial.trial}" style="stroke:${tint(trial)}" d="${d}"/>`);
    }
    axes.forEach((axis, index) => {
      parts.push(`<line class="axis" x1="${px(axis.x)}" x2="${px(axis.x)}" y1="${top}" y2="${foot}"/>`);
      parts.push(`<text class="title" x="${px(axis.x)}" y="16" text-anchor="middle"><title>${escape(axis.name)}</title>${cut(axis.name.replace(/^.*\.(?=[^.]+$)/, ""), Math.max(8, Math.floor(gap / 7)))}${axis.log ? " (log)" : ""}</text>`);
      for (const [at, text] of axis.ticks) parts.push(`<text class="tick" x="${px(axis.x + 7)}" y="${px(at + 4)}">${cut(text, 14)}</text>`);
      if (trials.some((trial) => axis.value(trial) === null)) parts.push(`<text class="tick" x="${px(axis.x + 7)}" y="${foot + 26}">none</text>`);
      const [low, high] = brushes.get(axis) ?? [0, 0];
      parts.push(`<rect class="brush" x="${px(axis.x - 10)}" width="20" y="${px(low)}" height="${px(high - low)}" visibility="${high > low ? "visible" : "hidden"}"/>`);
      parts.push(`<rect class="handle" data-axis="${index}" x="${px(axis.x - 16)}" width="32" y="${top - 8}" height="${foot - top + 38}"/>`);
    });
    plot.innerHTML = `${parts.join("")}</svg>`;
    mark();
  }

  const small = document.getElementById("scatter");
  for (const axis of axes.slice(0, -1)) {
    const box = small.appendChild(document.createElement("figure"));
    box.className = "chart";
    const caption = box.appendChild(document.createElement("figcaption"));
    caption.appendChild(document.createElement("b")).textContent = axis.name;
    box.appendChild(document.createElement("div")).className = "plot";
    axis.box = box.lastChild;
  }
  function scatter() {
    const outcome = axes[axes.length - 1];
    if (!outcome.extent) return;
    for (const axis of axes.slice(0, -1)) {
      const [width, height] = [Math.max(axis.box.clientWidth, 160), 170];
      const x = placer(axis, margin.left, width - margin.right, null);
      const y = placer(outcome, height - margin.bottom, margin.top, null);
      const parts = [`<svg viewBox="0 0 ${width} ${height}">`];
      for (const [at, text] of y.ticks) parts.push(`<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${px(at)}" y2="${px(at)}"/><text x="${margin.left - 7}" y="${px(at + 4)}" text-anchor="end">${text}</text>`);
      for (const [at, text] of x.ticks) parts.push(`<text x="${px(at)}" y="${height - 7}" text-anchor="middle">${cut(text, 10)}</text>`);
      parts.push(`<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${height - margin.bottom}" y2="${height - margin.bottom}"/>`);
      for (const trial of ranked) {
        const at = x.at(trial);
        if (at !== null) parts.push(`<circle class="trial" data-trial="${trial.trial}" style="fill:${tint(trial)}" cx="${px(at)}" cy="${px(y.at(trial))}" r="4"/>`);
      }
      axis.box.innerHTML = `${parts.join("")}</svg>`;
    }
    mark();
  }

  const byNumber = new Map(trials.map((trial) => [String(trial.trial), trial]));
  /** Shows the trials selected by the brushes and the one under the pointer, in the drawings and the table. */
  function mark() {
    for (const element of document.querySelectorAll("[data-trial]")) {
      const trial = byNumber.get(element.dataset.trial);
      element.classList.toggle("out", !passes(trial));
      element.classList.toggle("over", trial === over);
    }
  }
  function point(event) {
    const element = event.target.closest("[data-trial]");
    const trial = element ? byNumber.get(element.dataset.trial) : null;
    if (trial !== over) {
      over = trial;
      mark();
    }
    if (trial && !event.target.closest("table")) tip.show(event, `trial ${trial.trial}, ${trial.state}`, rowsOf(trial));
    else tip.hide();
  }
  for (const place of [plot, small, document.getElementById("trials")]) {
    place.addEventListener("pointermove", point);
    place.addEventListener("pointerleave", () => { over = null; tip.hide(); mark(); });
  }

  let drag = null;
  const heightOf = (event) => {
    const box = plot.querySelector("svg").getBoundingClientRect();
    return ((event.clientY - box.top) * size.height) / box.height;
  };
  plot.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".handle");
    if (!handle) return;
    drag = { axis: axes[handle.dataset.axis], from: heightOf(event) };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [low, high] = [drag.from, heightOf(event)].sort((a, b) => a - b);
    if (high - low < 4) return;
    brushes.set(drag.axis, [low, high]);
    coordinates();
  });
  plot.addEventListener("pointerup", (event) => {
    if (drag && Math.abs(heightOf(event) - drag.from) < 4 && brushes.delete(drag.axis)) coordinates();
    drag = null;
  });
  new ResizeObserver(() => {
    if (plot.clientWidth === size?.seen) return;
    brushes.clear();
    coordinates();
    scatter();
    size.seen = plot.clientWidth;
  }).observe(plot);
}
