// Interactive plots: Pareto and rank curves, drawn by plotly from the page's data.
"use strict";

const query = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = () => window.innerWidth < 700;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colorOf = (family) => page.styles[family][query.matches ? "dark" : "color"];
const CONFIG = {displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]};

/** Escape text for plotly's labels, which read a little markup. */
const escaped = (text) => String(text).replace(/[&<>]/g, (sign) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[sign]);

const shownNumber = (value) => (value === null ? "not known" : Number(value.toPrecision(4)).toString().replace("-", "\u2212"));
const withInterval = ([mean, low, high]) =>
  shownNumber(mean) + (low === null ? "" : ` [${shownNumber(low)}, ${shownNumber(high)}]`);

function layout(x, y) {
  const axis = {title: {font: {size: narrow() ? 11 : 13}}, gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--soft"), automargin: true};
  return {
    margin: {l: 60, r: 16, t: 12, b: 50}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: {color: css("--ink"), size: 13, family: "system-ui, sans-serif"},
    legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: {size: narrow() ? 11 : 12}},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent")},
    hoverlabel: {align: "left", font: {size: 12}},
    xaxis: {...axis, ...x, title: {...axis.title, ...x.title}}, yaxis: {...axis, ...y, title: {...axis.title, ...y.title}},
  };
}

/** What a point says: the exact setting, both numbers with intervals, seeds and run ids. */
function hoverText(row, number, x, y, chance, timed) {
  const setting = row.dial === null ? row.kind.replace("_", "-") : `${row.dial} = ${row.value}, ${row.kind.replace("_", "-")}`;
  const ids = row.trials.filter((trial) => trial.status === "ok").map((trial) => escaped(trial.run_id));
  const listed = ids.slice(0, 8).join("<br>") + (ids.length > 8 ? `<br>and ${ids.length - 8} more` : "");
  return `<b>#${number} ${escaped(row.label)}</b><br>${escaped(setting)}<br>${escaped(x.title)}: ${withInterval(x.value)}` +
    `<br>${escaped(y.title)}: ${withInterval(y.value)}<br>seeds: ${row.n} of ${row.planned}` +
    (chance === undefined || chance === null || row.n < 2 ? "" : `<br>on the front with probability ${Math.round(100 * chance)} % (seeds${timed ? " and times" : ""} drawn again)`) + `<br>${listed}`;
}

/** Indices on the front by the means: no other point is as good in both and better in one. */
function frontOf(points, higher) {
  const sign = higher ? 1 : -1;
  const beats = (one, other) => one.x <= other.x && sign * (one.y - other.y) >= 0 && (one.x < other.x || one.y !== other.y);
  return new Set(points.map((_, i) => i).filter((i) => !points.some((point) => beats(point, points[i]))));
}

/** A range that shows all values with room around; intervals of few seeds may run out of it. */
function rangeOf(values, room, reversed, log) {
  const known = values.filter((value) => value !== null && Number.isFinite(value) && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
  if (!known.length) return undefined;
  const low = Math.min(...known), high = Math.max(...known), span = Math.max(high - low, log ? 0.1 : 0.02 * Math.max(Math.abs(low), Math.abs(high), 1e-9));
  return reversed ? [high + room * span, low - room * span] : [low - room * span, high + room * span];
}

const errorBars = (own, key, color) => ({
  type: "data", symmetric: false, color, thickness: 1, width: 0,
  array: own.map((point) => (point[key][1] === null ? 0 : point[key][2] - point[key][0])),
  arrayminus: own.map((point) => (point[key][1] === null ? 0 : point[key][0] - point[key][1])),
});

function drawPareto() {
  const xKey = document.querySelector("#pareto-x").value, yKey = document.querySelector("#pareto-y").value;
  const log = document.querySelector("#pareto-log").checked, bars = document.querySelector("#pareto-bars").checked;
  const [xAxis, yAxis] = [page.costs[xKey], page.scores[yKey]];
  const points = page.rows.map((row, i) => ({row, number: i + 1, cost: row.costs[xKey], score: row.scores[yKey]}))
    .filter((point) => point.cost[0] !== null && point.score[0] !== null && (!log || point.cost[0] > 0))
    .map((point) => ({...point, x: point.cost[0], y: point.score[0]}));
  const front = frontOf(points, yAxis.higher);
  points.forEach((point, i) => { point.front = front.has(i); });
  const traces = [...new Set(points.map((point) => point.row.family))].map((family) => {
    const own = points.filter((point) => point.row.family === family), color = colorOf(family);
    const intervals = bars ? {error_x: errorBars(own, "cost", color + "80"), error_y: errorBars(own, "score", color + "80")} : {};
    return {
      type: "scatter", mode: "markers", name: escaped(family), x: own.map((point) => point.x), y: own.map((point) => point.y), ...intervals,
      marker: {color, symbol: page.styles[family].symbol, size: 11, opacity: own.map((point) => (point.front ? 1 : 0.4))},
      customdata: own.map((point) => point.number), hovertemplate: "%{text}<extra></extra>",
      text: own.map((point) => hoverText(point.row, point.number, {...xAxis, value: point.cost}, {...yAxis, value: point.score}, yKey === "delta_m" ? point.row.front[xKey] : undefined, xKey in point.row.ranges)),
    };
  });
  const onFront = points.filter((point) => point.front).sort((a, b) => a.x - b.x);
  const steps = {x: onFront.map((point) => point.x), y: onFront.map((point) => point.y)};
  traces.unshift({type: "scatter", mode: "lines", name: "Pareto front", ...steps, line: {shape: "hv", dash: "dash", width: 1.5, color: css("--soft")}, hoverinfo: "skip"});
  const published = xKey === "params" && yKey === "delta_m" ? page.published || [] : [];
  if (published.length) {
    traces.push({
      type: "scatter", mode: "markers", name: "published, another code base", x: published.map((point) => point.cost), y: published.map((point) => point.delta_m),
      marker: {symbol: "circle-open", color: css("--soft"), size: 9}, text: published.map((point) => escaped(point.label)), hovertemplate: "published: %{text}<br>%{x} M, %{y} %<extra></extra>",
    });
  }
  const ys = points.map((point) => point.y).concat(published.map((point) => point.delta_m), yKey === "delta_m" ? [0] : []);
  const x = {title: {text: escaped(`${xAxis.title}${log ? ", log" : ""} \u2193`)}, type: log ? "log" : "linear", exponentformat: "none", range: rangeOf(points.map((point) => point.x).concat(published.map((point) => point.cost)), 0.12, false, log)};
  if (log) Object.assign(x, {dtick: "D2", tickformat: "~g"});
  const y = {title: {text: escaped(`${yAxis.title} ${yAxis.higher ? "\u2191" : "\u2193"}`)}, range: rangeOf(ys, 0.35, !yAxis.higher, false)};
  Plotly.react("pareto-plot", traces, layout(x, y), CONFIG);
}

function drawCurves() {
  const dial = document.querySelector("#curves-dial").value, yKey = document.querySelector("#curves-y").value, yAxis = page.scores[yKey];
  const bands = document.querySelector("#curves-bands").checked, note = document.querySelector("#curves-note");
  const rows = page.rows.map((row, i) => ({row, number: i + 1, score: row.scores[yKey]})).filter((point) => point.score[0] !== null);
  const swept = rows.filter((point) => point.row.dial === dial);
  const families = [...new Set(swept.map((point) => point.row.family))].filter((family) => swept.filter((point) => point.row.family === family).length > 1);
  const own = (family) => swept.filter((point) => point.row.family === family).sort((a, b) => a.row.value - b.row.value);
  const traces = [], values = [...new Set(swept.map((point) => point.row.value))].sort((a, b) => a - b);
  for (const family of families) {
    const points = own(family), color = colorOf(family), x = points.map((point) => point.row.value);
    const known = points.filter((point) => point.score[1] !== null);
    if (bands && known.length > 1) {
      traces.push({
        type: "scatter", x: [...known.map((p) => p.row.value), ...known.map((p) => p.row.value).reverse()], y: [...known.map((p) => p.score[2]), ...known.map((p) => p.score[1]).reverse()],
        fill: "toself", fillcolor: color + "22", line: {width: 0}, mode: "lines", hoverinfo: "skip", showlegend: false, legendgroup: family,
      });
    }
    traces.push({
      type: "scatter", mode: "lines+markers", name: escaped(family), legendgroup: family, x, y: points.map((point) => point.score[0]),
      line: {color, dash: page.styles[family].dash}, marker: {color, symbol: page.styles[family].symbol, size: 9},
      customdata: points.map((point) => point.number), hovertemplate: "%{text}<extra></extra>",
      text: points.map((point) => hoverText(point.row, point.number, {title: page.costs.params.title, value: point.row.costs.params}, {...yAxis, value: point.score})),
    });
  }
  const baselines = rows.filter((point) => point.row.dial === null).slice(0, 8);
  for (const point of families.length ? baselines : []) {
    traces.push({
      type: "scatter", mode: "lines", name: escaped(point.row.label), x: [values[0], values[values.length - 1]], y: [point.score[0], point.score[0]],
      line: {color: colorOf(point.row.family), dash: page.styles[point.row.family].dash, width: 1}, hovertemplate: "%{fullData.name}: %{y:.4~g}<extra></extra>",
    });
  }
  const problem = "No method has results at two values of its dial.";
  note.textContent = families.length ? "Lines without markers are rows that have no dial." : problem;
  document.querySelector("#curves .controls").hidden = document.querySelector("#curves-plot").hidden = !families.length;
  if (!families.length) return;
  const ys = [...swept, ...(families.length ? baselines : [])].map((point) => point.score[0]);
  const log = values.length > 1 && values[0] > 0;
  const ticks = values.length <= 12 ? {tickvals: values, ticktext: values.map(String)} : {tickformat: "~g"};
  const x = {title: {text: escaped((dial || "").replace(/_/g, " "))}, type: log ? "log" : "linear", ...ticks};
  Plotly.react("curves-plot", traces, layout(x, {title: {text: escaped(`${yAxis.title} ${yAxis.higher ? "\u2191" : "\u2193"}`)}, range: rangeOf(ys, 0.5, false, false)}), CONFIG);
}

/** Draw the losses of one row's trials in a box. */
function drawLosses(box, row, task) {
  const traces = row.trials.filter((trial) => trial.history?.losses[task]).map((trial, i) => ({
    type: "scatter", mode: trial.history.epoch.length > 1 ? "lines" : "markers", name: `seed ${trial.seed}`, x: trial.history.epoch, y: trial.history.losses[task],
    line: {color: colorOf(row.family), dash: ["solid", "dash", "dot", "dashdot"][i % 4], width: 1.5}, hovertemplate: `${escaped(trial.run_id)}<br>epoch %{x}: %{y}<extra></extra>`,
  }));
  const small = layout({title: {text: "epoch"}}, {title: {text: "training loss"}});
  Plotly.react(box, traces, {...small, margin: {l: 50, r: 8, t: 8, b: 36}, font: {...small.font, size: 11}}, {...CONFIG, displayModeBar: false});
}
