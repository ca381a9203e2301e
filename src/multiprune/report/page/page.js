"use strict";
// Tables are sorted by a click on a heading, filtered by words, and commands are copied.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [row, row.cells[column].dataset.key ?? ""]);
      const filled = keyed.filter(([, key]) => key !== "");
      const numbers = filled.every(([, key]) => !Number.isNaN(Number(key)));
      const before = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
      filled.sort(([, a], [, b]) => (rising ? before(a, b) : before(b, a)));
      // Cells without a value stay last either way.
      const empty = keyed.filter(([, key]) => key === "");
      body.append(...[...filled, ...empty].map(([row]) => row));
    });
  });
}
for (const input of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  const words = rows.map((row) => row.textContent.toLowerCase());
  const shown = input.nextElementSibling;
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/);
    let count = 0;
    rows.forEach((row, index) => {
      row.hidden = !wanted.every((word) => words[index].includes(word));
      count += row.hidden ? 0 : 1;
    });
    shown.textContent = `${count} of ${rows.length}`;
  });
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "selected";
  }
  setTimeout(() => (button.textContent = "copy"), 1500);
});
