"use strict";
// Texts from records go into the page as text only: by textContent, or by plain() where Plotly would read markup.
const byId = (id) => document.getElementById(id);
const stored = byId("data") && JSON.parse(byId("data").textContent);
const short = (value, digits = 4) => (value === null || value === undefined ? "" : Number(value.toPrecision(digits)).toLocaleString("en"));
async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status === 404 ? "this run is not there" : `the server answers ${answer.status}`);
  return answer.json();
}

// The table of all runs: title, what is sorted by, what is shown.
const whole = (value) => (value === null || value === undefined ? "" : value.toLocaleString("en"));
const columns = [
  ["run", (run) => run.name, (run) => link(run)],
  ["environment", (run) => run.env, (run) => element("span", run.env ?? "")],
  ["status", (run) => run.status, (run) => status(run)],
  ["progress", (run) => run.progress, (run) => bar(run)],
  ["update", (run) => run.update, (run) => element("span", whole(run.update))],
  ["env_steps", (run) => run.env_steps, (run) => element("span", whole(run.env_steps))],
  ["return", (run) => run.return, (run) => curve(run)],
  ["lr", (run) => run.lr, (run) => element("span", run.lr == null ? "" : `${run.lr.toExponential(2)} ${run.phase ?? ""}`)],
  ["last anomaly", (run) => run.anomaly, (run) => element("span", run.anomaly ?? "", "bad")],
  ["last event", (run) => run.seconds_since, (run) => element("span", ago(run.seconds_since))],
];
const order = { by: 0, down: false };
let runs = [];

function link(run) {
  const made = element("a", run.name);
  made.href = `#${encodeURIComponent(run.name)}`;
  return made;
}

function status(run) {
  const bad = ["unreadable", "diverged", "failed", "silent"].includes(run.status);
  const made = element("span", run.error ? `${run.status}: ${run.error}` : run.status, bad ? "bad" : run.status);
  return made;
}

function bar(run) {
  const made = element("progress");
  made.value = run.progress ?? 0;
  made.title = `${short(100 * (run.progress ?? 0), 3)} %`;
  return made;
}

function curve(run) {
  const made = element("span", short(run.return));
  const known = (run.sparkline ?? []).filter((value) => value !== null);
  if (known.length < 2) return made;
  const low = Math.min(...known), span = Math.max(...known) - low || 1;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.setAttribute("class", "sparkline");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  line.setAttribute("points", known.map((value, i) => `${(100 * i) / (known.length - 1)},${19 - (18 * (value - low)) / span}`).join(" "));
  svg.append(line);
  made.append(svg);
  return made;
}

function ago(seconds) {
  if (seconds == null) return "";
  const [unit, name] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= 2 * size) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / unit))} ${name} ago`;
}

function compare(a, b) {
  const key = columns[order.by][1], [left, right] = [key(a), key(b)];
  if (left == null || right == null) return (left == null) - (right == null);
  const found = typeof left === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
  return order.down ? -found : found;
}

function showTable() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  const text = (run) => [run.name, run.env, run.status, run.phase, run.anomaly].join(" ").toLowerCase();
  const shown = runs.filter((run) => words.every((word) => text(run).includes(word))).sort(compare);
  const counts = Map.groupBy ? [...Map.groupBy(shown, (run) => run.status)].map(([name, some]) => `, ${some.length} ${name}`) : [];
  byId("count").textContent = `${shown.length} of ${runs.length} runs${counts.join("")}`;
  byId("rows").replaceChildren(...shown.map((run) => {
    const row = element("tr");
    for (const [title, , cell] of columns) {
      const made = element("td", undefined, ["status", "last anomaly"].includes(title) && (run.error || title !== "status") ? "text" : "");
      made.append(cell(run));
      row.append(made);
    }
    return row;
  }));
  [...byId("heads").children].forEach((head, i) => head.setAttribute("aria-sort", i !== order.by ? "none" : order.down ? "descending" : "ascending"));
}

columns.forEach(([title], i) => {
  const head = element("th"), button = element("button", title);
  button.onclick = () => { order.down = order.by === i && !order.down; order.by = i; showTable(); };
  head.append(button);
  byId("heads").append(head);
});
byId("filter").oninput = showTable;

// The page of one run: title, the columns that are drawn, and how they are called.
const panels = [
  ["Return", { episode_return_mean: "training", evaluation: "evaluation" }],
  ["Learning rates", { "lr/policy": "policy", "lr/value": "value", "lr/shared": "shared" }],
  ...["value_loss", "approx_kl", "clip_fraction", "ratio_std", "entropy", "steps_per_second"].map((name) => [name, { [name]: name }]),
].map(([title, series]) => ({ title, series }));
// A line below stays visible where rates are equal.
const dashes = { "lr/value": "dash", "lr/shared": "dot" };
let open = null, known = null;

for (const panel of panels) {
  Object.assign(panel, makePanel(panel.title, false, draw));
  byId("plots").append(panel.figure);
}
byId("x").onchange = () => draw();

/** Adds the columns of `answer` behind those that are there; a column that one of them lacks has no values there. */
function join(answer) {
  if (answer.first === 0) known = { columns: {}, count: 0 };
  const count = Object.values(answer.columns)[0]?.length ?? 0;
  for (const name of new Set([...Object.keys(known.columns), ...Object.keys(answer.columns)])) {
    known.columns[name] ??= Array(known.count).fill(null);
    known.columns[name].push(...(answer.columns[name] ?? Array(count).fill(null)));
  }
  known.count += count;
  Object.assign(known, { mark: answer.mark, row: answer.row, evaluations: answer.evaluations });
}

function traces(panel) {
  const x = byId("x").value;
  return Object.entries(panel.series).flatMap(([name, title]) => {
    if (name === "evaluation") {
      const points = known.evaluations;
      if (!points.length) return [];
      return [{ x: points.map((each) => each[x === "update" ? 0 : 1]), y: points.map((each) => each[2]), name: title, mode: "lines+markers" }];
    }
    if (!known.columns[name]) return [];
    const phases = known.columns[name.replace("lr/", "lr_phase/")];
    const text = name.startsWith("lr/") && phases ? phases.map((phase) => plain(phase ?? "")) : undefined;
    return [{ x: known.columns[x], y: known.columns[name], text, name: title, line: { dash: dashes[name] ?? "solid" }, mode: known.count < 50 ? "lines+markers" : "lines",
      connectgaps: true, hovertemplate: text ? "%{y:.4g} %{text}" : "%{y:.4g}" }];
  });
}

function draw() {
  for (const panel of panels) {
    const found = traces(panel), axis = { rangemode: "lr/policy" in panel.series ? "tozero" : "normal" };
    if (panel.title === "steps_per_second") axis.tickformat = "~s";
    panel.figure.hidden = !found.length;
    if (found.length) drawPanel(panel, found, { yaxis: axis }, [known.row.name, byId("x").value].join(), [known.mark, known.evaluations.length].join());
  }
}

function tableOf(rows, heads) {
  const made = element("div", undefined, "wide"), table = element("table");
  for (const [tag, cells] of [["th", heads], ...rows.map((row) => ["td", row])]) {
    const row = element("tr");
    row.append(...cells.map((cell) => element(tag, cell)));
    table.append(row);
  }
  made.append(table);
  return made;
}

function showRun(answer) {
  const run = answer.row, stamp = JSON.stringify([answer.settings, answer.anomalies, run.name]);
  join(answer);
  document.title = byId("name").textContent = run.name;
  const done = answer.evaluations.filter((each) => each[2] !== null && each[2] !== undefined);
  const evaluated = done.length ? `, ${short(done[done.length - 1][2])} in the latest evaluation, ${short(Math.max(...done.map((each) => each[2])))} in the best` : "";
  byId("answer").textContent = run.return == null ? "no episode ended" : `Return ${short(run.return)} in the last update${evaluated}`;
  byId("how").replaceChildren(status(run), `, ${run.env ?? ""}, seed ${run.seed ?? ""}, update ${whole(run.update)} of `
    + `${whole(run.total_updates)} (0 is the first), ${whole(run.env_steps)} environment steps, last event ${ago(run.seconds_since)}`);
  draw();
  // Made anew only where it changes, so that what is unfolded stays so.
  if (byId("settings").dataset.stamp === stamp) return;
  byId("settings").dataset.stamp = stamp;
  const rest = element("details");
  rest.append(element("summary", `${answer.settings.default.length} more have their defaults`), tableOf(answer.settings.default, ["setting", "value"]));
  byId("settings").replaceChildren(element("h2", "Settings"), tableOf(answer.settings.changed, ["setting", "value"]), rest);
  byId("anomalies").replaceChildren(...(answer.anomalies.length ? [element("h2", "Anomalies", "bad"),
    tableOf(answer.anomalies, ["kind", "first update", "last update", "updates", "what"])] : []));
}

async function look() {
  try {
    const name = location.hash ? decodeURIComponent(location.hash.slice(1)) : null;
    if (name !== open) { open = name; known = null; }
    byId("overview").hidden = name !== null;
    byId("single").hidden = name === null;
    if (name === null) {
      document.title = "Esper";
      const found = stored ? stored.runs : await ask("api/runs");
      if (name === open) { runs = found; showTable(); }
    } else {
      // Long curves are thinned by the server, again and again.
      const since = known && known.count < 4000 ? known.mark : "";
      const answer = stored ? stored.run[name] : await ask(`api/run?name=${encodeURIComponent(name)}&since=${encodeURIComponent(since)}`);
      if (!answer) throw new Error("this run is not there");
      if (name === open) showRun(answer);
    }
    byId("state").textContent = "";
  } catch (error) {
    byId("state").textContent = error instanceof TypeError ? `no answer: is esper watch still running? (${error.message})` : error.message;
  }
}

// One question at a time: an answer that comes late must not be followed by an earlier one.
let asking = Promise.resolve();
const lookNow = () => (asking = asking.then(look));
addEventListener("hashchange", lookNow);
dark.addEventListener("change", () => known && draw());
async function keepLooking() {
  await lookNow();
  if (!stored) setTimeout(keepLooking, document.hidden ? 10000 : 2000);
}
keepLooking();
