// The table of images and the recipe.

const table = byId("table");
table?.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sort]");
  if (!button) return;
  const column = Number(button.dataset.sort), head = button.parentElement;
  const down = head.getAttribute("aria-sort") !== "descending" && column > 0
    || head.getAttribute("aria-sort") === "ascending";
  const valueOf = (row) => {
    const cell = row.cells[column];
    return parseFloat(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
  };
  const known = (value) => (Number.isNaN(value) ? -Infinity : value);
  const rows = Array.from(table.tBodies[0].rows, (row) => [known(valueOf(row)), row]);
  rows.sort(([a], [b]) => (a === b ? 0 : down === a < b ? 1 : -1));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
});

byId("copy").addEventListener("click", async () => {
  const recipe = byId("recipe");
  getSelection().selectAllChildren(recipe);
  try {
    await navigator.clipboard.writeText(recipe.textContent);
    byId("copied").textContent = "copied";
  } catch {
    byId("copied").textContent = "selected: press Ctrl+C";
  }
});
