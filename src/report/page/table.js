// Tables: click a heading to sort by it, click again to reverse. Rows without a value stay at the bottom.

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    heading.tabIndex = 0;
    const sort = () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const text = cell.textContent.trim();
        return { row, value: cell.dataset.value === undefined ? (text === "–" ? null : text) : Number(cell.dataset.value) };
      });
      rows.sort((a, b) => {
        if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
        const order = typeof a.value === "number" && typeof b.value === "number" ? a.value - b.value : String(a.value).localeCompare(String(b.value));
        return down ? -order : order;
      });
      body.append(...rows.map(({ row }) => row));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", ({ key }) => { if (key === "Enter") sort(); });
  });
}
