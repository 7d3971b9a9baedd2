"use strict";
// Draws the figures that reports/figures.py specified, the table of designs, and keeps both in step with the controls.
// Nothing is computed here but display: fading, sorting, filtering, stacking parts that the rows already hold.

const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLUMN = new Map(DATA.columns.map((column) => [column.key, column]));
const ALL = Array.from({ length: DATA.count }, (_, i) => i);
const MOST_BARS = 12;
const state = {
  workload: 0, phase: DATA.phase, budget: DATA.budget, scale: "share", cycles: "cycles", parts: "energy",
  picked: new Set(), matching: new Set(ALL), sort: "", down: true,
};
const workload = () => DATA.workloads[state.workload];
// The reader's choice, or the first there is: a workload without decode or without a perplexity offers fewer.
const offered = (choice, offers) => (offers.includes(choice) ? choice : offers[0]);
const phase = () => offered(state.phase, workload().phases);
const budget = () => offered(state.budget, workload().budgets);
state.sort = phase() + "_tokens_per_s";

// ---- values -------------------------------------------------------------------------------------------------

const VALUES = new Map(Object.entries(DATA.values).map(([key, coded]) => {
  let column = coded;
  if (!Array.isArray(coded)) column = "c" in coded ? ALL.map(() => coded.c) : coded.i.map((at) => coded.d[at]);
  if (COLUMN.get(key)?.infinite) column = column.map((value) => (value === "Infinity" ? Infinity : value));
  return [key, column];
}));
const WHOLE = new Set([...VALUES.keys()].filter((key) => VALUES.get(key).every((x) => x === null || Number.isInteger(x))));
const value = (key, row) => VALUES.get(key)[row];
const HTML = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escapeHtml = (text) => String(text).replace(/[&<>"]/g, (sign) => HTML[sign]);

// Four significant digits; whole columns (counts, configured sizes) in full.
function number(x, whole = false) {
  if (x === Infinity) return "∞";
  if (x === 0 || whole) return x.toLocaleString("en-US");
  const size = Math.abs(x);
  if (size >= 1e7 || size < 1e-4) return x.toExponential(3);
  return x.toLocaleString("en-US", { minimumSignificantDigits: 4, maximumSignificantDigits: 4 });
}

function si(x, unit) {
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const [size, prefix] = steps.find(([least]) => x >= least) ?? [1, ""];
  return (x / size).toPrecision(3) + " " + prefix + (unit === "cycles" && prefix ? " " : "") + unit;
}

function shown(key, row) {
  const x = value(key, row);
  if (x === null) return COLUMN.get(key)?.null ?? "–";
  return typeof x === "number" ? number(x, WHOLE.has(key)) : x;
}

const label = (row) => [value("label_1", row), value("label_2", row)];
const ratio = () => DATA.budgets[budget()].ratio ?? Infinity;
// No budget excludes a design whose perplexity is not measured.
const inBudget = (row) => (value("perplexity_over_best", row) ?? 0) <= ratio() * (1 + 1e-12);

// ---- plots --------------------------------------------------------------------------------------------------

const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

function hover(row) {
  const measured = value("perplexity", row) !== null, decoded = value("decode_tokens_per_s", row) !== null;
  const line = (name, ...keys) => name + " " + keys.map((key) => escapeHtml(shown(key, row))).join(" / ");
  return [
    "<b>" + escapeHtml(label(row)[0]) + "</b>",
    ["machine", "dataflow", "node"].map((key) => escapeHtml(value(key, row))).join(", ") + ", " + shown("clock_mhz", row) + " MHz",
    line("memory", "dram") + ", " + shown("dram_bandwidth_bytes_per_cycle", row) + " B/cycle",
    line("act / wgt / out buffers", "act_buffer_kib", "wgt_buffer_kib", "out_buffer_kib") + " KiB",
    line("weights", "weights_and_group") + " (" + escapeHtml(value("weight_unit", row) ?? "native") + ")",
    line("acts / kv / head", "acts", "kv", "head") + ", activation scales: " + value("act_scale", row),
    "",
    "<b>" + line("perplexity", "perplexity") + "</b>" + (measured ? line(", ×", "perplexity_over_best") + line(" best, bits/weight", "bits_per_weight") : ""),
    ...(decoded ? [line("decode tokens/s", "decode_tokens_per_s") + line(", ms/token", "tpot_ms") + line(", µJ/token", "decode_energy_uj_per_token")] : []),
    line("prefill tokens/s", "prefill_tokens_per_s") + line(", first token ms", "ttft_ms"),
    line("whole run µJ/token", "energy_uj_per_token"),
    line("area mm²", "area_mm2") + line(", utilisation", "utilisation"),
  ].join("<br>");
}

function draw(id, source, options = {}) {
  const data = [], at = new Map();
  for (const given of source.data) {
    const trace = { ...given };
    if (trace.meta?.budget !== undefined) {
      const unlimited = DATA.budgets.length - 1;
      trace.visible = trace.meta.budget === budget() || trace.meta.budget === unlimited;
    }
    if (trace.customdata) {
      trace.customdata.forEach((row, i) => at.set(row, at.has(row) ? at.get(row).concat([[trace.x[i], trace.y[i]]]) : [[trace.x[i], trace.y[i]]]));
      trace.hovertext = trace.customdata.map(hover);
      trace.hoverinfo = "text";
      const solid = trace.marker.opacity ?? 1;
      trace.marker = { ...trace.marker, opacity: trace.customdata.map((row) => (state.matching.has(row) && (options.everyBudget || inBudget(row)) ? solid : 0.13)) };
    }
    data.push(trace);
  }
  const rings = [...state.picked].flatMap((row) => at.get(row) ?? []);
  if (rings.length) {
    data.push({
      type: "scatter", mode: "markers", name: "selected", hoverinfo: "skip", x: rings.map((p) => p[0]), y: rings.map((p) => p[1]),
      marker: { symbol: "circle-open", size: 20, color: "#D55E00", line: { width: 2.5 } },
    });
  }
  const fresh = !$(id).data;
  // A copy: plotly writes computed ranges into the layout it is given.
  Plotly.react($(id), data, { ...structuredClone(source.layout), uirevision: state.workload + phase() }, CONFIG);
  if (fresh) $(id).on("plotly_click", (event) => {
    const row = event.points[0].customdata;
    if (typeof row === "number") pick(row, !state.picked.has(row));
  });
}

function drawRoofline() {
  const id = "plot-roofline", fresh = !$(id).data;
  draw(id, workload().roofline, { everyBudget: false });
  if (!fresh) return;
  const raise = (row, on) => {
    const at = $(id).data.findIndex((trace) => trace.meta?.rows?.includes(row));
    if (at >= 0) Plotly.restyle($(id), { "line.color": on ? "#1c2430" : "#c3c9d1", "line.width": on ? 2.5 : 1 }, [at]);
  };
  $(id).on("plotly_hover", (event) => raise(event.points[0].customdata, true));
  $(id).on("plotly_unhover", (event) => raise(event.points[0].customdata, false));
}

function barRows() {
  const figure = workload().energy[phase()];
  const front = figure.data.find((trace) => trace.meta?.budget === budget()).meta.rows;
  const speed = (row) => value(phase() + "_tokens_per_s", row);
  const first = [...front].sort((a, b) => speed(b) - speed(a)).filter((row) => !state.picked.has(row)).slice(0, MOST_BARS);
  return [...first, ...[...state.picked].sort((a, b) => speed(b) - speed(a))];
}

function drawBars(id, kind) {
  const parts = DATA.parts[kind], rows = barRows(), share = state.scale === "share";
  const scale = kind === "energy" ? 1e-6 : 1;
  const unit = { energy: "J", area: "mm²" }[kind] ?? "cycles";
  const total = rows.map((row) => parts.reduce((sum, [key]) => sum + value(key, row), 0));
  const write = (x) => (kind === "area" ? number(x) + " mm²" : si(x * scale, unit));
  const data = parts.map(([key, name, color, shape]) => ({
    type: "bar", orientation: "h", name, y: rows.map((_, i) => i),
    x: rows.map((row, i) => (share ? (total[i] ? (100 * value(key, row)) / total[i] : 0) : value(key, row) * scale)),
    hovertext: rows.map((row, i) => "<b>" + escapeHtml(label(row)[0]) + "</b><br>" + name + ": " + write(value(key, row)) + " (" + (100 * value(key, row) / (total[i] || 1)).toFixed(1) + " %)"),
    hoverinfo: "text",
    marker: { color, line: { width: 0.5, color: "white" }, pattern: { shape, fillmode: "overlay", fgcolor: "white", size: 6, solidity: 0.3 } },
  }));
  const longest = share ? 100 : Math.max(...total, 0) * scale;
  const base = workload().roofline.layout;
  const clip = (text) => (text.length > 48 ? text.slice(0, 47) + "…" : text);
  const names = rows.map((row) => {
    const [first, second] = label(row).map((text) => escapeHtml(clip(text)));
    return (state.picked.has(row) ? "● <b>" + first + "</b>" : first) + (second ? '<br><span style="color:#5b6675">' + second + "</span>" : "");
  });
  const layout = {
    ...structuredClone({ font: base.font, hoverlabel: base.hoverlabel, paper_bgcolor: "white", plot_bgcolor: "white" }),
    barmode: "stack", bargap: 0.35, height: 60 + 44 * Math.max(rows.length, 1), margin: { l: 8, r: 8, t: 6, b: 48 }, showlegend: false,
    xaxis: { range: [0, longest * 1.24 || 1], tickvals: share ? [0, 25, 50, 75, 100] : undefined, ticktext: share ? ["0", "25", "50", "75", "100 %"] : undefined, tickformat: share || kind === "area" ? "" : "~s", title: share ? undefined : { text: unit, standoff: 4 }, gridcolor: "#e6e9ee", zeroline: false, fixedrange: true },
    yaxis: { tickvals: rows.map((_, i) => i), ticktext: names, autorange: "reversed", automargin: true, fixedrange: true, tickfont: { size: 11 } },
    annotations: rows.map((_, i) => ({ x: share ? 100 : total[i] * scale, y: i, text: write(total[i]), showarrow: false, xanchor: "left", xshift: 4, font: { size: 11, color: "#5b6675" } })),
    hovermode: "closest",
  };
  Plotly.react($(id), data, layout, { ...CONFIG, displayModeBar: false });
  // A legend of our own: plotly's takes its height from the bars, which may be a single one.
  $(id + "-key").replaceChildren(...parts.map(([, name, color, shape]) => {
    const swatch = element("span", { className: "swatch" + (shape ? " " + (shape === "/" ? "slash" : "cross") : "") });
    swatch.style.backgroundColor = color;
    return element("li", {}, swatch, name);
  }));
}

// ---- table --------------------------------------------------------------------------------------------------

const lines = new Map();

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages opened from disk may lack the clipboard API.
    const box = element("textarea", { value: text });
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1200);
}

const visibleColumns = () => DATA.columns.filter((column) => column.main || $("everything").checked);

function buildTable() {
  const columns = visibleColumns();
  const heads = columns.map((column) => {
    const cell = element("th", { scope: "col", className: column.number ? "n" : "" });
    if (state.sort === column.key) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    const arrow = state.sort === column.key ? (state.down ? " ▾" : " ▴") : "";
    const button = element("button", { type: "button", title: column.key, textContent: column.label + arrow });
    button.addEventListener("click", () => sortBy(column));
    cell.append(button);
    return cell;
  });
  $("table").tHead.replaceChildren(element("tr", {}, element("th", { scope: "col" }, element("span", { className: "away", textContent: "select, copy command" })), ...heads));
  lines.clear();
  for (const row of ALL) {
    const tick = element("input", { type: "checkbox", checked: state.picked.has(row) });
    tick.setAttribute("aria-label", "select " + label(row).join(" "));
    tick.addEventListener("change", () => pick(row, tick.checked));
    const button = element("button", { type: "button", textContent: "copy", title: "copy: " + value("command", row) });
    button.addEventListener("click", () => copy(value("command", row), button));
    const line = element("tr", { id: "design-" + row }, element("td", {}, tick, button));
    for (const column of columns) {
      if (column.key === "command") {
        line.append(element("td", { className: "cmd", title: value("command", row) }, element("span", { textContent: value("command", row) })));
      } else {
        line.append(element("td", { className: column.number ? "n" : "", textContent: shown(column.key, row) }));
      }
    }
    lines.set(row, line);
  }
  arrange();
}

function sortBy(column) {
  state.down = state.sort === column.key ? !state.down : column.number;
  state.sort = column.key;
  const focused = column.key;
  buildTable();
  $("table").tHead.querySelector('button[title="' + CSS.escape(focused) + '"]').focus();
}

function arrange() {
  const key = COLUMN.get(state.sort).sort, sign = state.down ? -1 : 1;
  const compare = (a, b) => {
    const [x, y] = [value(key, a), value(key, b)];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1;
    return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  };
  const rows = [...state.matching].sort(compare);
  for (const row of rows) {
    lines.get(row).classList.toggle("picked", state.picked.has(row));
    lines.get(row).classList.toggle("out", !inBudget(row));
  }
  $("table").tBodies[0].replaceChildren(...rows.map((row) => lines.get(row)));
  $("count").textContent = "showing " + rows.length + " of " + DATA.count + " designs" + (state.picked.size ? ", " + state.picked.size + " selected" : "");
}

// One search term: a word found in any text of the row, or key<number, key>number, key=text.
function term(text) {
  const found = /^(\w+)(<=|>=|=|<|>)(.+)$/.exec(text);
  if (!found) {
    const word = text.toLowerCase(), texts = [...VALUES.values()];
    return (row) => texts.some((column) => typeof column[row] === "string" && column[row].toLowerCase().includes(word));
  }
  const [, key, sign, wanted] = found, x = Number(wanted);
  if (!VALUES.has(key)) throw new Error("no column " + key);
  if (sign === "=") return (row) => (typeof value(key, row) === "number" ? value(key, row) === x : String(value(key, row)) === wanted);
  if (Number.isNaN(x)) throw new Error(wanted + " is not a number");
  const compare = { "<": (y) => y < x, ">": (y) => y > x, "<=": (y) => y <= x, ">=": (y) => y >= x }[sign];
  return (row) => value(key, row) !== null && compare(value(key, row));
}

function filter() {
  const tests = [];
  $("bad").textContent = "";
  for (const text of $("find").value.split(/\s+/).filter(Boolean)) {
    try { tests.push(term(text)); } catch (error) { $("bad").textContent = "search ignores “" + text + "”: " + error.message; }
  }
  for (const select of $("picks").querySelectorAll("select")) {
    if (select.value !== "") tests.push((row) => String(value(select.name, row)) === select.value);
  }
  if ($("only").checked) tests.push(inBudget);
  state.matching = new Set(ALL.filter((row) => tests.every((test) => test(row))));
  arrange();
}

function saveCsv() {
  const cell = (x) => (/[",\n\r]/.test(String(x ?? "")) ? '"' + String(x).replaceAll('"', '""') + '"' : String(x ?? ""));
  const text = [DATA.csv, ...[...state.matching].map((row) => DATA.csv.map((key) => value(key, row)))].map((line) => line.map(cell).join(",")).join("\r\n");
  const link = element("a", { href: URL.createObjectURL(new Blob([text + "\r\n"], { type: "text/csv" })), download: "designs.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- everything in step -------------------------------------------------------------------------------------

function drawScatters() {
  draw("plot-energy", workload().energy[phase()]);
  draw("plot-area", workload().area[phase()]);
  drawRoofline();
}

function drawAllBars() {
  drawBars("plot-cycles", state.cycles);
  drawBars("plot-parts", state.parts);
}

function refresh() {
  for (const part of document.querySelectorAll("[data-workload]")) part.hidden = Number(part.dataset.workload) !== state.workload;
  for (const part of document.querySelectorAll(".choices")) part.hidden = part.dataset.phase !== phase() || Number(part.dataset.budget) !== budget();
  const { rows, best, label: name, phases, budgets } = workload();
  for (const [choice, offers] of [["phase", phases], ["budget", budgets]]) document.querySelector("input[name=" + choice + "]").closest("fieldset").hidden = offers.length < 2;
  const inside = rows.filter(inBudget).length;
  const most = ratio() === Infinity || best === null ? "" : " with perplexity ≤ " + number(best * ratio());
  $("inside").textContent = budgets.length < 2 ? phases.join(" and ") + " of " + rows.length + " designs, perplexity not measured" : inside + " of " + rows.length + " designs" + most;
  for (const plot of ["energy", "area"]) $("title-" + plot).textContent = (phase() === "decode" ? "Decode" : "Prefill") + " speed against " + (plot === "energy" ? "energy per token" : "area");
  $("plot-accuracy").setAttribute("aria-description", name);
  filter();
  drawScatters();
  drawAllBars();
}

function pick(row, on) {
  if (on) state.picked.add(row); else state.picked.delete(row);
  lines.get(row).querySelector("input").checked = on;
  arrange();
  drawScatters();
  drawAllBars();
}

function start() {
  for (const key of DATA.filters) {
    const choices = [...new Set(VALUES.get(key))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const name = COLUMN.get(key).label;
    const options = [element("option", { value: "", textContent: "any " + name }), ...choices.map((text) => element("option", { value: text, textContent: text }))];
    const select = element("select", { name: key }, ...options);
    select.setAttribute("aria-label", name);
    $("picks").append(select);
  }
  const shared = $("shared");
  if (shared.dataset.shared) shared.textContent = "The same in every design: " + shared.dataset.shared + ".";
  document.addEventListener("change", ({ target }) => {
    if (target.type === "radio") state[target.name] = target.name === "budget" ? Number(target.value) : target.value;
    if (target.id === "workload") state.workload = Number(target.value);
    if (target.name === "scale" || target.name === "cycles" || target.name === "parts") drawAllBars();
    else if (target.closest(".controls")) { refresh(); if (target.id === "workload") drawAccuracy(); }
    else if (target.closest("#filters")) { if (target.id === "everything") buildTable(); filter(); drawScatters(); }
  });
  let waiting = 0;
  $("find").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { filter(); drawScatters(); }, 150); });
  $("filters").addEventListener("reset", () => setTimeout(() => { buildTable(); filter(); drawScatters(); }));
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  $("csv").addEventListener("click", saveCsv);
  $("table").addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("tbody tr")?.[step]?.querySelector("input");
    if (next) { event.preventDefault(); next.focus(); }
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-row]");
    if (!link) return;
    event.preventDefault();
    $("filters").reset();
    pick(Number(link.dataset.row), true);
    setTimeout(() => lines.get(Number(link.dataset.row)).scrollIntoView({ block: "center" }));
  });
  // "#only=tradeoffs,roofline" shows just those sections: for pictures of a part of the page.
  const only = /^#only=([\w,]+)$/.exec(location.hash)?.[1].split(",");
  for (const section of document.querySelectorAll("main > section")) section.hidden = Boolean(only) && !only.includes(section.id);
  buildTable();
  refresh();
  drawAccuracy();
  document.documentElement.dataset.ready = "true";
}

function drawAccuracy() {
  const figure = workload().accuracy;
  $("plot-accuracy").closest("figure").hidden = !figure;
  if (figure) Plotly.react($("plot-accuracy"), figure.data, structuredClone(figure.layout), CONFIG);
}

start();
