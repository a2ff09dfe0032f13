// The table: sorting, filtering, opening rows. Works on the markup alone, also before the data are unpacked.
"use strict";

const body = document.querySelector("#results tbody");
const lines = [...body.querySelectorAll("tr[data-row]")];

/** The number that a cell shows, without its spread; NaN where it shows none. */
function numberOf(text) {
  const match = text.replace(/\u2212/g, "-").match(/^[^\d+-]*([+-]?\d[\d,]*\.?\d*)/);
  return match ? Number(match[1].replace(/,/g, "")) : NaN;
}

/** Sort by a column; what has no number stays last in both directions, equals keep the order of the plan. */
function sortBy(head, direction) {
  const place = [...head.parentNode.children].indexOf(head), sign = direction === "ascending" ? 1 : -1;
  const key = (line) => line.children[place].textContent.trim();
  const compare = head.dataset.kind === "text"
    ? (a, b) => sign * key(a).localeCompare(key(b), "en", {numeric: true})
    : (a, b) => {
      const [x, y] = [numberOf(key(a)), numberOf(key(b))];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
  const sorted = [...lines].sort((a, b) => compare(a, b) || a.dataset.row - b.dataset.row);
  for (const line of sorted) {
    const detail = line.nextElementSibling?.classList.contains("detail") ? line.nextElementSibling : null;
    body.append(line);
    if (detail) body.append(detail);
  }
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  body.classList.toggle("sorted", place !== 0 || direction !== "ascending");
}

for (const head of document.querySelectorAll("#results thead th")) {
  head.querySelector("button").addEventListener("click", () => {
    const now = head.getAttribute("aria-sort"), other = {ascending: "descending", descending: "ascending"};
    sortBy(head, now ? other[now] : head.dataset.first);
  });
}

const filter = document.querySelector("#filter"), family = document.querySelector("#family"), count = document.querySelector("#count");
for (const name of new Set(lines.map((line) => line.dataset.family))) family.append(new Option(name, name));

/** Show the rows that hold every word; "incomplete" asks for rows that lack seeds. */
function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const line of lines) {
    const text = `${line.dataset.family} ${line.textContent} ${line.classList.contains("incomplete") ? "incomplete" : ""}`.toLowerCase();
    const fits = words.every((word) => text.includes(word)) && (!family.value || line.dataset.family === family.value);
    line.hidden = !fits;
    if (line.nextElementSibling?.classList.contains("detail")) line.nextElementSibling.hidden = !fits;
    shown += fits;
  }
  count.textContent = shown === lines.length ? `${shown} rows` : `${shown} of ${lines.length} rows`;
}
filter.addEventListener("input", applyFilter);
family.addEventListener("change", applyFilter);
applyFilter();
