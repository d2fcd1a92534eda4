"use strict";
// Search, filters, sorting and further rows of the report. A part is a table with its figures, or a record; a group holds
// parts. What is searched are the texts of rows, read once: the page itself has a hundred rows of a table at most.

const AT_ONCE = 100; // rows of a part that are shown before more are asked for
const FOUND_AT_ONCE = 50; // while searching
const FOUND_IN_ALL = 200; // while searching, of all parts together; each further part has a few
const FEW = 5;
const FIGURES = 8;
const search = document.getElementById("search");
const count = document.getElementById("count");
const clear = document.getElementById("clear");
const filters = [...document.querySelectorAll("[data-filter]")];
const groups = [...document.querySelectorAll(".group")];
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const keysOf = element => (element.dataset.keys || "").split(" ");
const targetOf = link => document.getElementById(decodeURIComponent(link.hash.slice(1)));
const lower = element => (element ? element.textContent.toLowerCase() : "");

class Row {
  constructor(keys, cells, element) {
    this.keys = keys;
    this.cells = cells;
    this.text = cells.join("\n").toLowerCase();
    this.element = element;
  }
}

class Part {
  constructor(element) {
    this.element = element;
    this.keys = keysOf(element);
    this.table = element.querySelector("table");
    this.head = this.table ? [...this.table.tHead.rows[0].cells] : [];
    this.figures = [...element.querySelectorAll("figure")].map(figure => ({
      element: figure,
      keys: keysOf(figure),
      text: lower(figure.querySelector("figcaption")),
    }));
    this.heading = [lower(element.querySelector("h3")), ...this.head.map(lower)].join("\n");
    this.about = [...element.querySelectorAll(":scope > :is(p, summary, dl), .note")].map(lower).join("\n");
    this.most = AT_ONCE;
    this.mostFigures = FIGURES;
    this.order = null; // the column by which rows are sorted, and 1 or -1
    this.head.forEach((cell, column) => this.#sortable(cell, column));
    this.scroll = this.table?.closest(".scroll");
    if (this.table) this.moreRows = this.#line(this.scroll);
    if (this.figures.length > FIGURES) this.moreFigures = this.#line(element.querySelector(".figures").lastElementChild);
  }

  #sortable(cell, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    button.title = [cell.title, "click to sort"].filter(Boolean).join("; ");
    cell.removeAttribute("title");
    cell.replaceChildren(button);
    button.addEventListener("click", () => this.sort(column));
  }

  #line(after) {
    const line = document.createElement("p");
    line.className = "more";
    after.after(line);
    return line;
  }

  // all rows; those that the page has not shown yet are read from the JSON beside the table
  get rows() {
    if (this.known) return this.known;
    const further = this.element.querySelector('script[type="application/json"]');
    const there = this.table ? [...this.table.tBodies[0].rows] : [];
    this.known = there.map(
      row =>
        new Row(
          keysOf(row),
          Array.from(row.cells, cell => cell.textContent),
          row,
        ),
    );
    for (const [keys, ...cells] of further ? JSON.parse(further.textContent) : [])
      this.known.push(new Row(keys.split(" "), cells));
    further?.remove();
    return this.known;
  }

  get closed() {
    return this.element.tagName === "DETAILS" && !this.element.open;
  }

  // which rows and figures have all words, in them or in the headings, and all chosen keys; all rows, where none has a word
  // that is said of them as a whole
  match({ words, keys }) {
    const chosen = of => keys.every(key => of.includes(key));
    const has = (text, some) => some.every(word => text.includes(word));
    const rest = words.filter(word => !this.heading.includes(word));
    const whole = rest.filter(word => !this.about.includes(word));
    this.found = !rest.length && !keys.length ? null : this.rows.filter(row => chosen(row.keys) && has(row.text, rest));
    if (this.found?.length === 0 && !whole.length) this.found = this.rows.filter(row => chosen(row.keys));
    const records = new Set(rest.length ? this.found.flatMap(row => row.keys.filter(key => key[0] === "r")) : []);
    this.shown = this.figures.filter(
      figure => chosen(figure.keys) && (has(figure.text, whole) || figure.keys.some(key => records.has(key))),
    );
    const itself = chosen(this.keys) && !whole.length && !this.table && !this.figures.length;
    this.element.hidden = !(itself || !this.found || this.found.length || this.shown.length);
  }

  get matching() {
    return this.found ?? this.rows;
  }

  // shows what was found: this many rows, or as many more as were asked for
  render(limit = AT_ONCE) {
    const figures = new Set(this.shown.slice(0, this.mostFigures));
    for (const figure of this.figures) figure.element.hidden = !figures.has(figure);
    if (this.moreFigures)
      this.#offer(this.moreFigures, this.shown.length - figures.size, "figures", () => {
        this.mostFigures = Infinity;
      });
    if (!this.table || this.closed || this.element.hidden) return;
    const rows = this.sorted().slice(0, this.most > AT_ONCE ? this.most : limit);
    const body = this.table.tBodies[0];
    this.scroll.hidden = !rows.length;
    if (rows.length !== body.rows.length || rows.some((row, number) => row.element !== body.rows[number]))
      body.replaceChildren(...rows.map(row => (row.element ??= this.#row(row))));
    this.#offer(this.moreRows, this.matching.length - rows.length, "rows", all => {
      this.most = all ? Infinity : rows.length + AT_ONCE;
    });
  }

  #offer(line, left, what, more) {
    line.hidden = left <= 0;
    if (left <= 0) return;
    const button = (text, all) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.addEventListener("click", () => {
        more(all);
        this.render();
      });
      return made;
    };
    line.replaceChildren(`${left} more ${what} `);
    if (what === "rows" && left > AT_ONCE) line.append(button(`the next ${AT_ONCE}`, false), " ");
    line.append(button(`show all`, true));
  }

  #row(row) {
    const made = document.createElement("tr");
    row.cells.forEach((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (!column) cell.scope = "row";
      cell.className = this.head[column].className;
      cell.textContent = text;
      made.append(cell);
    });
    return made;
  }

  sort(column) {
    const before = this.order?.column === column ? this.order.turn : 0;
    const turn = before === 0 ? 1 : before === 1 ? -1 : 0; // up, down, as it was
    this.order = turn ? { column, turn } : null;
    this.head.forEach((cell, number) => {
      if (turn && number === column) cell.ariaSort = turn > 0 ? "ascending" : "descending";
      else cell.ariaSort = null;
    });
    this.render();
  }

  // empty cells last, numbers by their value and before words
  sorted() {
    if (!this.order) return this.matching;
    const { column, turn } = this.order;
    const numeric = this.head[column].classList.contains("num");
    const value = row => (numeric ? parseFloat(row.cells[column]) : row.cells[column]);
    const empty = row => row.cells[column] === "";
    return [...this.matching].sort(
      (one, other) =>
        empty(one) - empty(other) ||
        turn * (numeric ? value(one) - value(other) : collator.compare(value(one), value(other))),
    );
  }
}

const parts = [...document.querySelectorAll(".part")].map(element => new Part(element));
let before = null; // how the page was before the search: what was open, how much was shown, and where

function look() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const keys = filters.map(filter => filter.value).filter(Boolean);
  const active = words.length + keys.length > 0;
  const leaving = !active && before;
  if (active && !before)
    before = {
      open: [...document.querySelectorAll("details")].map(one => [one, one.open]),
      most: parts.map(part => [part, part.most, part.mostFigures]),
      at: scrollY,
    };
  if (active) for (const part of parts) [part.most, part.mostFigures] = [AT_ONCE, FIGURES];
  if (leaving) {
    for (const [one, open] of before.open) one.open = open;
    for (const [part, most, mostFigures] of before.most) [part.most, part.mostFigures] = [most, mostFigures];
  }
  for (const part of parts) part.match({ words, keys });
  for (const group of groups) {
    group.hidden = !group.querySelector(".part:not([hidden])");
    if (active && !group.hidden) group.open = true;
  }
  let room = FOUND_IN_ALL;
  for (const part of parts) {
    const most = active ? Math.max(FEW, Math.min(FOUND_AT_ONCE, room)) : AT_ONCE;
    part.render(most);
    if (active && !part.closed) room -= Math.min(part.matching.length, most);
  }
  document.getElementById("overview").hidden = active;
  for (const link of document.querySelectorAll("nav a")) link.hidden = targetOf(link).hidden;
  document.querySelector("main").classList.toggle("searching", active);
  clear.hidden = !active;
  count.textContent = active ? told(parts.filter(part => !part.element.hidden)) : "";
  if (active) scrollTo({ top: 0, behavior: "instant" });
  if (leaving) scrollTo({ top: before.at, behavior: "instant" });
  before = active ? before : null;
}

// what is left, in words
function told(left) {
  if (!left.length) return "nothing is left";
  const sum = (several, value) => several.reduce((total, one) => total + value(one), 0);
  const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
  const rows = several =>
    counted(
      sum(several, part => part.matching.length),
      "row",
    );
  const records = left.filter(part => part.element.tagName === "DETAILS");
  const others = left.filter(part => !records.includes(part));
  const tables = others.filter(part => part.matching.length);
  const figures = sum(others, part => part.shown.length);
  return (
    `left: ${counted(tables.length, "table")} with ${rows(tables)}, ` +
    `${counted(figures, "figure")}, ${counted(records.length, "record")} with ${rows(records)}`
  );
}

function everything() {
  search.value = "";
  for (const filter of filters) filter.value = "";
  look();
}

// opens what a link leads to, and whatever a search has hidden of it
function reveal(target) {
  if (!target) return;
  if (target.closest("[hidden]")) everything();
  const part = parts.find(one => one.element.contains(target));
  if (part && target.hidden) {
    part.mostFigures = Infinity;
    part.render();
  }
  for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  goTo(target);
}

// scrolls to it, and again while parts on the way that have not been laid out before turn out to be of another size
function goTo(target, frames = 10) {
  target.scrollIntoView();
  const { top } = target.getBoundingClientRect();
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      if (frames && Math.abs(target.getBoundingClientRect().top - top) > 1) goTo(target, frames - 1);
    }),
  );
}

search.addEventListener("input", look);
filters.forEach(filter => filter.addEventListener("change", look));
document.querySelector(".tools").addEventListener("submit", event => event.preventDefault());
clear.addEventListener("click", () => {
  everything();
  search.focus({ preventScroll: true });
});
for (const button of document.querySelectorAll("[data-choose]"))
  button.addEventListener("click", () => {
    const filter = filters.find(one => [...one.options].some(option => option.value === button.dataset.choose));
    filter.value = button.dataset.choose;
    look();
  });
for (const part of parts)
  if (part.element.tagName === "DETAILS") part.element.addEventListener("toggle", () => part.render());
document.addEventListener("click", event => {
  const link = event.target.closest('a[href^="#"]');
  if (link) reveal(targetOf(link)); // and then the browser goes there
});
addEventListener("hashchange", () => reveal(targetOf(location)));

const zoom = document.getElementById("zoom");
for (const button of document.querySelectorAll(".zoom"))
  button.addEventListener("click", () => {
    const [from, to] = [button.querySelector("img"), zoom.querySelector("img")];
    [to.src, to.alt, to.className] = [from.src, from.alt, ""];
    zoom.showModal();
  });
zoom.addEventListener("click", event => {
  if (event.target.tagName === "IMG")
    event.target.classList.toggle("whole"); // as large as it is, or as the window
  else zoom.close();
});

for (const image of document.querySelectorAll("[data-figure]"))
  image.src = document.getElementById(image.dataset.figure).querySelector("img").src;
const bar = document.getElementById("bar");
new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
look();
reveal(targetOf(location));
// so that the first search has nothing left to read
const unread = [...parts];
function readOn() {
  unread.pop()?.rows;
  if (unread.length) (window.requestIdleCallback ?? setTimeout)(readOn);
}
readOn();
