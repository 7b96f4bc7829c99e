// Heat maps: a colored cell per layer and step, or per layer and expert.

// Viridis, which is perceptually ordered, also for color blindness and in grayscale.
const ramp = [[68, 1, 84], [70, 50, 126], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 193, 109], [160, 218, 57], [253, 231, 37]];
const dead = [213, 60, 40];

function colour(part) {
  const place = Math.min(Math.max(part, 0), 1) * (ramp.length - 1);
  const below = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[below].map((from, channel) => Math.round(from + (ramp[below + 1][channel] - from) * (place - below)));
}

for (const { id, rows, steps, load } of data.maps) {
  const figure = document.getElementById(id);
  const columns = Math.max(...rows.map((row) => row.length), 0);
  if (!figure || columns === 0) continue;
  const values = rows.flat().filter((value) => value !== null);
  const [least, most] = extent(values) ?? [0, 1];
  const [low, high] = [Math.min(least, load && steps ? 1 : 0), Math.max(most, load ? 1.5 : 1)];
  const plot = figure.querySelector(".plot");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows.length];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows.length);
  rows.forEach((row, at) => row.forEach((value, column) => {
    const isDead = !steps && value === 0;
    const [red, green, blue] = isDead ? dead : value === null ? [128, 128, 128] : colour((value - low) / (high - low));
    image.data.set([red, green, blue, value === null ? 60 : 255], 4 * (at * columns + column));
  }));
  context.putImageData(image, 0, 0);
  canvas.style.height = `${Math.min(Math.max(rows.length * 18, 90), 320)}px`;

  const side = (className, ...texts) => {
    const element = document.createElement("div");
    element.className = className;
    for (const text of texts) element.appendChild(document.createElement("span")).textContent = text;
    return element;
  };
  const layers = side("layers", "layer 0", `${rows.length - 1}`);
  const foot = steps ? side("feet", `step ${shown(1)}`, shown(steps[steps.length - 1])) : side("feet", "expert 0", `${columns - 1}`);
  const key = side("key", `${brief(low, 3)}${load ? " ×" : ""}`, "", `${brief(high, 3)}${load ? " × uniform" : " experts"}`);
  key.children[1].style.background = `linear-gradient(to right, ${ramp.map((stop) => `rgb(${stop})`).join(",")})`;
  if (!steps && values.includes(0)) {
    const chip = key.appendChild(document.createElement("span"));
    chip.className = "chip";
    chip.style.setProperty("--chip", `rgb(${dead})`);
    chip.textContent = "dead";
  }
  plot.append(layers, canvas, foot, key);

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(Math.floor(((event.clientX - box.left) / box.width) * columns), columns - 1);
    const layer = Math.min(Math.floor(((event.clientY - box.top) / box.height) * rows.length), rows.length - 1);
    const value = rows[layer]?.[column];
    if (value === undefined) return;
    const first = steps && column > 0 ? steps[column - 1] + 1 : 1;
    const where = steps ? (first < steps[column] ? `steps ${shown(first)} to ${shown(steps[column])}` : `step ${shown(steps[column])}`) : `expert ${column}`;
    const isDead = !steps && value === 0;
    const text = value === null ? "not a number" : isDead ? "dead" : load ? `${shown(value)} × uniform` : `${value} dead`;
    tip.show(event, `layer ${layer}, ${where}`, [{ label: "", value: text }]);
  });
  canvas.addEventListener("pointerleave", tip.hide);
}
