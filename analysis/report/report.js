"use strict";
// Makes tables sortable by their headings, and adds a filter field above. Without it they stay static.

const EMPTY = new Set(["", "–", "baseline"]);
const SECONDS = { h: 3600, min: 60, s: 1 };

/** The number of a cell such as "−3.10 ± 0.2", "7,608,871", "3 min 20 s"; null without a number. */
function number(text) {
  const plain = text.replaceAll("−", "-").replaceAll(",", "");
  if (!/^[+-]?\d*\.?\d+(\s|%|×|$)/.test(plain)) return null;
  const spans = [...plain.matchAll(/(\d+) (h|min|s)\b/g)];
  if (spans.length) return spans.reduce((sum, [, n, unit]) => sum + n * SECONDS[unit], 0);
  return parseFloat(plain);
}

function textOf(row, column) {
  return row.cells[column].textContent.trim();
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filled = rows.filter((row) => !EMPTY.has(textOf(row, column)));
  const numeric = filled.every((row) => number(textOf(row, column)) !== null);
  const compare = (a, b) => {
    const [left, right] = [textOf(a, column), textOf(b, column)];
    return numeric
      ? number(left) - number(right)
      : left.localeCompare(right, undefined, { numeric: true });
  };
  filled.sort((a, b) => (direction === "descending" ? compare(b, a) : compare(a, b)));
  const empty = rows.filter((row) => EMPTY.has(textOf(row, column)));
  body.append(...filled, ...empty);
}

function makeSortable(table) {
  const original = [...table.tBodies[0].rows];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null };
      const now = heading.getAttribute("aria-sort");
      const direction = now === null ? "ascending" : next[now];
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      if (direction === null) {
        table.tBodies[0].append(...original);
      } else {
        heading.setAttribute("aria-sort", direction);
        sort(table, column, direction);
      }
    });
  });
}

function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  const field = document.createElement("input");
  const count = document.createElement("span");
  const line = document.createElement("div");
  const title = table.closest("section").querySelector("h2").textContent;
  field.type = "search";
  field.placeholder = "Filter";
  field.setAttribute("aria-label", `Filter: ${title}`);
  count.className = "soft";
  count.setAttribute("role", "status");
  line.className = "filter";
  line.append(field, count);
  table.parentElement.before(line);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const left = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${left} of ${rows.length} rows` : "";
  });
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length > 1) makeSortable(table);
  if (table.tBodies[0].rows.length > 4) makeFilterable(table);
}
