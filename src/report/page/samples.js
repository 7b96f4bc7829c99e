// Samples: one sampling point at a time, with a slider over the steps.

for (const moments of document.querySelectorAll(".moments")) {
  const articles = [...moments.querySelectorAll("article")];
  if (articles.length < 2) continue;
  const bar = document.createElement("div");
  bar.className = "controls";
  const slider = bar.appendChild(document.createElement("input"));
  Object.assign(slider, { type: "range", min: 0, max: articles.length - 1, value: articles.length - 1 });
  slider.setAttribute("aria-label", "moment");
  const name = bar.appendChild(document.createElement("output"));
  const show = () => {
    articles.forEach((article, at) => { article.hidden = at !== Number(slider.value); });
    name.textContent = articles[slider.value].dataset.when;
  };
  slider.addEventListener("input", show);
  moments.classList.add("one");
  moments.prepend(bar);
  show();
}
