"use strict";
// Texts from records go into the page as text only: by textContent, or by plain() where Plotly would read markup.
const dark = matchMedia("(prefers-color-scheme: dark)");
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A figure with a caption and, unless `log` is null, a switch to a logarithmic axis. */
function makePanel(title, log, redraw) {
  const panel = { log, figure: element("figure"), place: element("div") }, head = element("figcaption", title);
  if (log !== null) {
    const box = element("input"), label = element("label", "log ");
    box.type = "checkbox";
    box.checked = log;
    box.onchange = () => { panel.log = box.checked; redraw(panel); };
    label.append(box);
    head.append(label);
  }
  panel.figure.append(head, panel.place);
  return panel;
}

/** What takes the page's colours: a layout, and its axes. */
function theme() {
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
  return {
    faint: colour("--faint"),
    axis: { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true },
    layout: {
      margin: { l: 10, r: 10, t: 10, b: 10 }, font: { color: colour("--text"), size: 12 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: colour("--back"), bordercolor: colour("--line") },
    },
  };
}

/** Draws a figure that brings its own layout. */
function drawWhole(panel) {
  const { axis, layout } = theme(), axes = Object.entries(panel.layout).filter(([name]) => /^[xy]axis\d*$/.test(name));
  panel.figure.className = panel.width ? "whole wide" : "whole";
  if (panel.width) panel.place.style.minWidth = `${panel.width}px`;
  const own = Object.fromEntries(axes.map(([name, given]) => [name, { ...axis, ...given }]));
  const legend = { orientation: "h", y: 1.2 }, options = { responsive: true, displayModeBar: false };
  Plotly.react(panel.place, panel.traces, { ...layout, legend, ...panel.layout, ...own }, options);
}

/** Draws `traces`. The zoom stays while `shown` is the same; `data` is another where they have changed. */
function drawPanel(panel, traces, layout, shown, data) {
  const { axis, faint, layout: base } = theme();
  const yaxis = { ...axis, exponentformat: "e", ...layout.yaxis, type: panel.log ? "log" : "linear" };
  if (panel.log && yaxis.range) yaxis.range = yaxis.range[0] > 0 ? yaxis.range.map(Math.log10) : undefined;
  const same = [shown, panel.log].join();
  if (layout.height) panel.place.style.height = `${layout.height}px`;
  Plotly.react(panel.place, traces, {
    ...base, hovermode: "x unified",
    showlegend: traces.filter((trace) => trace.showlegend !== false).length > 1, legend: { orientation: "h", y: -0.15 },
    ...layout, yaxis,
    xaxis: { ...axis, spikethickness: 1, spikedash: "dot", spikecolor: faint, ...layout.xaxis },
    // Columns may grow in place, which Plotly would not see.
    uirevision: same, datarevision: [same, data].join(),
  }, { responsive: true, displayModeBar: false });
}

// Panels that are in the page: each element of class plots has its own as JSON. Switches are of all panels.
const embedded = [...document.querySelectorAll(".plots > script")].flatMap((data) => JSON.parse(data.textContent).map((each) => {
  const panel = Object.assign(makePanel(each.title, each.log, drawEmbedded), each);
  data.parentElement.append(panel.figure);
  return panel;
}));

function drawEmbedded(panel) {
  if (panel.whole) {
    drawWhole(panel);
    return;
  }
  const off = [...document.querySelectorAll(".switches input:not(:checked)")].map((box) => box.value);
  drawPanel(panel, panel.traces.filter((trace) => !off.includes(trace.legendgroup)), panel.layout, "", off.join("\n"));
}

document.querySelectorAll(".switches input").forEach((box) => { box.onchange = () => embedded.forEach(drawEmbedded); });
dark.addEventListener("change", () => embedded.forEach(drawEmbedded));
embedded.forEach(drawEmbedded);
