"use strict";
// The live page of a running study. A server sends changed variants; a file is reloaded as a whole.

const settings = JSON.parse(document.getElementById("settings").textContent);
const STATES = ["done", "running", "unfinished", "failed", "planned"];
const EVERY_MS = 2000;
const DASHES = ["", "6 3", "1.5 2.5", "6 2 1.5 2"];

let study = JSON.parse(document.getElementById("document").textContent);
const groups = new Map(study.groups.map((group) => [group.at, group]));
let received = Date.now();
let lost = "";

// the reader's choices, which are kept when a file is reloaded
const kept = recall();
const opened = new Set(kept.opened ?? []);
let page = kept.page ?? 0;

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem("live") ?? "{}");
  } catch {
    return {};
  }
}

function remember() {
  try {
    const state = { opened: [...opened], page, filter: filter.value };
    sessionStorage.setItem("live", JSON.stringify(state));
  } catch {
    // a file may have no storage; the choices are then lost at a reload
  }
}

/** An element with a class, and children that are elements or texts. */
function make(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  for (const [big, small, unit, rest] of [[86400, 3600, "d", "h"], [3600, 60, "h", "min"], [60, 1, "min", "s"]]) {
    if (whole >= big) return `${Math.floor(whole / big)} ${unit} ${Math.floor((whole % big) / small)} ${rest}`;
  }
  return `${whole} s`;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : value.toPrecision(4);
  return (size >= 1e4 && size < 1e6 ? Math.round(value).toLocaleString("en") : text).replace("-", "−");
}

function picture(run) {
  const image = make("img", "samples");
  const name = encodeURIComponent(run.name);
  image.loading = "lazy";
  image.alt = `Samples of ${run.name}`;
  image.src = settings.served
    ? `samples/${name}?${run.image}`
    : `${settings.samples}${name}/samples/grid.png?${run.image}`;
  return image;
}

function look(group) {
  const n = settings.palette.length;
  return { color: settings.palette[group.at % n], dash: DASHES[Math.floor(group.at / n) % DASHES.length] };
}

/** Done runs as done, the rest of the progress as running. */
function bar(counts, share) {
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const element = make("div", "bar");
  const done = (counts.done ?? 0) / all;
  const failed = (counts.failed ?? 0) / all;
  const begun = Math.max(0, Math.min(share - done, 1 - done - failed));
  const idle = counts.running ? "running" : "unfinished";
  for (const [state, part] of [["done", done], [idle, begun], ["failed", failed]]) {
    const piece = make("i");
    piece.style.width = `${100 * part}%`;
    piece.style.background = `var(--${state})`;
    element.append(piece);
  }
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", `${Math.floor(100 * share)} % done`);
  return element;
}

function dot(state) {
  const element = make("span", "dot");
  element.style.background = `var(--${state})`;
  return element;
}

function showTotal() {
  const total = document.getElementById("total");
  const legend = make("p", "legend");
  for (const state of STATES) {
    if (!study.counts[state]) continue;
    const button = make("button", "", dot(state), make("strong", "", study.counts[state].toLocaleString("en")), ` ${state}`);
    button.type = "button";
    button.title = `Show variants with ${state} runs`;
    button.addEventListener("click", () => {
      filter.value = filter.value === state ? "" : state;
      choose();
    });
    legend.append(button);
  }
  const left = study.left === null ? "" : `about ${duration(study.left)} left`;
  legend.append(make("span", "left", left));
  total.replaceChildren(bar(study.counts, study.share), legend);

  const failed = document.getElementById("failed");
  failed.hidden = study.failed.length === 0;
  const errors = make("ul");
  for (const { error, runs, first } of study.failed) {
    const others = runs > 1 ? ` and ${(runs - 1).toLocaleString("en")} more` : "";
    errors.append(make("li", "", make("code", "", first), `${others}: ${error}`));
  }
  failed.replaceChildren(make("strong", "", "Failed"), errors);
}

const VERDICTS = /\b(better|worse|equivalent|undecided)\b/;

function showAnswers() {
  const list = document.querySelector("#answers ul");
  list.replaceChildren(
    ...study.statements.map((text) => {
      const found = VERDICTS.exec(text);
      if (!found) return make("li", "", text);
      const word = make("span", `verdict ${found[0]}`, found[0]);
      return make("li", "", text.slice(0, found.index), word, text.slice(found.index + found[0].length));
    })
  );
  const looks = study.looks.length
    ? `Looks at ${study.looks.join(", ")} seeds; ${study.looked.length} of ${study.looks.length} done.`
    : "";
  let line = document.querySelector("#answers .soft");
  line ??= document.querySelector("#answers").appendChild(make("p", "soft"));
  line.textContent = looks;
}

function showNewest() {
  const section = document.getElementById("newest");
  section.hidden = study.newest.length === 0;
  section.parentElement.style.gridTemplateColumns = section.hidden ? "minmax(0, 1fr)" : "";
  section.querySelector(".strip").replaceChildren(
    ...study.newest.map((run) => make("figure", "", picture(run), make("figcaption", "", run.variant)))
  );
}

/** A tick distance of 1, 2 or 5 times a power of ten, so that at most `most` fit into the span. */
function nice(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return [1, 2, 5, 10].map((first) => first * power).find((size) => size >= span / most);
}

/** At most five ticks at 1, 2, 5 times a power of ten; on a narrow axis, evenly spaced ticks. */
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const first of [1, 2, 5]) {
      const value = first * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  if (found.length < 3) {
    const every = nice(high - low, 4);
    const first = Math.ceil(low / every);
    return Array.from({ length: 1 + Math.floor(high / every) - first }, (_, i) => (first + i) * every);
  }
  return found.length > 5 ? found.filter((value) => /^1/.test(String(value).replace(/^0\.0*/, ""))) : found;
}

function steps(value) {
  return value >= 1e6 ? `${value / 1e6}M` : value >= 1e4 ? `${value / 1e3}k` : String(value);
}

function showLoss(shown) {
  const chart = document.querySelector("#loss .chart");
  const drawn = shown.filter((group) => group.curve.some((value) => value !== null && value > 0));
  document.getElementById("loss").hidden = drawn.length === 0;
  if (!drawn.length) return;
  const width = Math.max(280, chart.clientWidth || 600);
  const height = Math.round(Math.min(320, Math.max(200, width * 0.45)));
  const box = { left: 46, right: 10, top: 8, bottom: 36 };
  const values = drawn.flatMap((group) => group.curve.filter((value) => value !== null && value > 0));
  const [low, high] = [Math.min(...values) / 1.05, Math.max(...values) * 1.05];
  const last = Math.max(...drawn.map((group) => group.steps));
  const x = (step) => box.left + (step / last) * (width - box.left - box.right);
  const y = (value) => box.top + (Math.log(high / value) / Math.log(high / low)) * (height - box.top - box.bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Training loss over steps" });
  for (const tick of logTicks(low, high)) {
    picture.append(svg("line", { class: "grid", x1: box.left, x2: width - box.right, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(3)))));
  }
  const every = Math.max(1, nice(last, 4));
  for (let step = 0; step <= last; step += every) {
    picture.append(svg("text", { x: x(step), y: height - box.bottom + 16, "text-anchor": "middle" }, steps(step)));
  }
  picture.append(svg("text", { x: (box.left + width - box.right) / 2, y: height - 4, "text-anchor": "middle" }, "step"));
  for (const group of drawn) {
    const { color, dash } = look(group);
    const bins = group.curve.length;
    let path = "";
    group.curve.forEach((value, bin) => {
      if (value === null || value <= 0) return;
      path += `${path ? "L" : "M"}${x(((bin + 0.5) / bins) * group.steps).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    const line = svg("path", { d: path, stroke: color, "stroke-dasharray": dash, "data-at": group.at });
    line.append(svg("title", {}, group.variant));
    picture.append(line);
  }
  chart.replaceChildren(picture);
  document.querySelector("#loss figcaption").textContent =
    "Mean over seeds, for the variants listed below in the same colours.";
}

function text(group) {
  const verdicts = group.answers.map((answer) => answer.verdict);
  return [group.variant, ...Object.keys(group.counts), ...verdicts].join(" ").toLowerCase();
}

function matching() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const ordered = [...groups.values()].sort((a, b) => a.at - b.at);
  return ordered.filter((group) => words.every((word) => text(group).includes(word)));
}

function cells(run) {
  const share = run.steps ? `${(run.step ?? 0).toLocaleString("en")} / ${run.steps.toLocaleString("en")}` : "–";
  const stage = run.stage && run.state !== "done" && run.stage !== "train" ? ` (${run.stage})` : "";
  const row = make(
    "tr", "",
    make("td", "", String(run.seed ?? 0)),
    make("td", "text", dot(run.state), run.state + stage),
    make("td", "", run.state === "done" ? (run.steps ?? 0).toLocaleString("en") : share),
    make("td", "wide", short(run.loss)),
    make("td", "wide", run.rate === undefined ? "–" : short(run.rate)),
    make("td", "", run.left === undefined ? "–" : duration(run.left)),
    make("td", "", short(run.value)),
    make("td", "wide", run.image ? picture(run) : "–")
  );
  row.title = run.name;
  return row;
}

function inside(group) {
  const heads = [["seed"], ["state", "text"], ["step"], ["loss", "wide"], ["images/s", "wide"], ["left"], [study.metric || "result"], ["samples", "wide"]];
  const head = make("tr", "", ...heads.map(([name, kind]) => make("th", kind, name)));
  const body = make("tbody");
  for (const run of group.runs) {
    body.append(cells(run));
    if (!run.error) continue;
    const cell = make("td", "error", run.error);
    cell.colSpan = heads.length;
    body.append(make("tr", "", cell));
  }
  return make("div", "inside", make("div", "scroll", make("table", "", make("thead", "", head), body)));
}

function summary(group) {
  const swatch = make("span", "swatch");
  swatch.style.background = look(group).color;
  const words = STATES.filter((state) => group.counts[state]).map((state) => `${group.counts[state]} ${state}`);
  const mean = group.mean === null ? "" : `${short(group.mean)}`;
  const verdicts = make("span", "verdicts");
  for (const answer of group.answers) {
    verdicts.append(
      make("div", "", make("span", `verdict ${answer.verdict}`, answer.verdict), make("span", "change", ` ${answer.change}, n = ${answer.seeds}`))
    );
  }
  const looks = group.looks
    .map((verdict, i) => (verdict ? `${study.looked[i]} seeds: ${verdict}` : ""))
    .filter(Boolean);
  if (group.baseline && !group.answers.length) verdicts.append(make("span", "change", "baseline"));
  if (looks.length) verdicts.append(make("div", "looks", looks.join(" → ")));
  const number = make("span", "number", mean);
  if (mean) number.title = study.metric;
  return make(
    "summary", "",
    make("span", "name", swatch, group.variant),
    make("span", "state", bar(group.counts, group.share), make("span", "counts", words.join(", "))),
    number,
    verdicts
  );
}

function showGroups() {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / settings.page));
  page = Math.min(page, pages - 1);
  const shown = found.slice(page * settings.page, (page + 1) * settings.page);
  const list = document.querySelector(".groups");
  const focused = document.activeElement?.closest?.("details")?.dataset.at;
  for (const element of list.querySelectorAll("details")) { // "toggle" comes later than the click
    const { variant } = groups.get(Number(element.dataset.at)) ?? {};
    if (variant !== undefined) element.open ? opened.add(variant) : opened.delete(variant);
  }
  list.replaceChildren(
    ...shown.map((group) => {
      const element = make("details", "", summary(group));
      element.dataset.at = group.at;
      if (opened.has(group.variant)) {
        element.open = true;
        element.append(inside(group));
      }
      element.addEventListener("toggle", () => {
        if (element.open && element.children.length === 1) element.append(inside(groups.get(group.at)));
        element.open ? opened.add(group.variant) : opened.delete(group.variant);
        remember();
      });
      const mark = (isOn) => {
        const chart = document.querySelector("#loss .chart");
        chart.classList.toggle("chosen", isOn);
        chart.querySelector(`path[data-at="${group.at}"]`)?.classList.toggle("chosen", isOn);
      };
      element.addEventListener("pointerenter", () => mark(true));
      element.addEventListener("pointerleave", () => mark(false));
      return element;
    })
  );
  if (focused) list.querySelector(`[data-at="${focused}"] summary`)?.focus({ preventScroll: true });
  const status = document.querySelector(".controls .soft");
  const first = page * settings.page + 1;
  status.textContent =
    found.length === 0 ? "no variant matches"
    : pages > 1 ? `${first}–${first + shown.length - 1} of ${found.length.toLocaleString("en")} variants`
    : found.length < groups.size ? `${found.length} of ${groups.size.toLocaleString("en")} variants` : "";
  document.querySelector(".heads .number").textContent = study.metric || "result";
  document.querySelector(".heads").hidden = shown.length === 0;
  const [back, on] = document.querySelectorAll(".pager button");
  back.disabled = page === 0;
  on.disabled = page === pages - 1;
  document.querySelector(".pager").hidden = pages === 1;
  showLoss(shown);
}

function showAge() {
  const age = Math.max(0, (Date.now() - received) / 1000);
  const ago = settings.served ? age : Math.max(0, Date.now() / 1000 - study.time);
  const clock = new Date(1000 * study.time).toLocaleString();
  const words = settings.served && age < 5 ? "live" : `as of ${duration(ago)} ago`;
  const line = document.getElementById("age");
  line.textContent = lost || words;
  line.title = clock;
}

function showAll() {
  showTotal();
  showAnswers();
  showNewest();
  showGroups();
  showAge();
}

const filter = document.querySelector(".controls input");
filter.value = kept.filter ?? "";

function choose() {
  page = 0;
  remember();
  showGroups();
}

filter.addEventListener("input", choose);
document.querySelectorAll(".pager button").forEach((button, i) =>
  button.addEventListener("click", () => {
    page += i ? 1 : -1;
    remember();
    showGroups();
    document.getElementById("variants").scrollIntoView({ block: "start" });
  })
);

let drawnWidth = 0;
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - drawnWidth) < 2) return;
  drawnWidth = entry.contentRect.width;
  showGroups();
}).observe(document.querySelector("main"));

async function ask() {
  try {
    const answer = await fetch(`live.json?since=${study.version}`);
    if (!answer.ok) throw new Error(answer.statusText);
    const next = await answer.json();
    received = Date.now();
    lost = "";
    const isNew = next.groups.length > 0 || next.variants !== groups.size;
    if (next.variants < groups.size) groups.clear(); // the grid has changed: ask for all variants
    for (const group of next.groups) groups.set(group.at, group);
    study = next.variants > groups.size ? { ...next, version: 0 } : next;
    if (isNew) showAll();
    else showTotal();
  } catch {
    lost = "no answer: has the server stopped?";
  }
  showAge();
}

showAll();
if (settings.served) {
  setInterval(() => document.hidden || ask(), EVERY_MS);
  document.addEventListener("visibilitychange", () => document.hidden || ask());
} else {
  setInterval(showAge, 10_000);
}
