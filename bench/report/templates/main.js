// Start: unpack data and plotly, fill the controls, draw. A browser that cannot unpack says so; table and figures are there without.
"use strict";

let page;

async function unpack(id) {
  if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack the page's data (DecompressionStream is missing); a browser from 2023 or later can");
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const data = unpack("data").then((text) => { page = JSON.parse(text); });
const ready = data.then(() => unpack("plotly")).then((code) => { document.head.append(make("script", {text: code})); });

function options(select, axes) {
  for (const [key, axis] of Object.entries(axes)) select.append(new Option(axis.title, key));
}

function drawPanels() {
  const task = page.panels.tasks[document.querySelector("#panels-task").value], place = Number(document.querySelector("#panels-image").value);
  const grid = document.querySelector("#panels-grid"), picture = (src, alt) => make("img", {src, alt});
  const card = (title, note, ...images) => make("figure", {}, make("figcaption", {}, make("b", {text: title}), make("br"), note), ...images);
  const labelled = task.rows.some((row) => row.errors[place] !== null), none = () => make("p", {text: "no label", cls: "no-label"});
  grid.replaceChildren(
    card("Image and ground truth", `image ${task.ids[place]}`, picture(task.images[place], "image"), labelled ? picture(task.truth[place], "ground truth") : none()),
    ...task.rows.map((row) => card(row.label, row.errors[place] === null ? "no label, no error" : `${row.errors[place]}${task.unit}`,
      picture(row.prediction[place], `prediction of ${row.run_id}`), labelled ? picture(row.error[place], "error map") : none())),
  );
  const left = page.panels.left_out.length ? ` Left out for the size of the page: ${page.panels.left_out.join(", ")}; figures beside the page show them.` : "";
  document.querySelector("#panels-note").textContent =
    `Prediction over error map (${task.reading}). The images lie in equal parts of the validation split and were chosen by their labels before training; each row shows its lowest seed. Errors are of this image, thinned to at most 224 pixels a side.${left}`;
}

function startPanels() {
  const tasks = document.querySelector("#panels-task"), images = document.querySelector("#panels-image");
  for (const task of Object.keys(page.panels.tasks)) tasks.append(new Option(page.tasks[task], task));
  page.panels.tasks[tasks.value].ids.forEach((id, place) => images.append(new Option(id, place)));
  for (const control of [tasks, images]) control.addEventListener("change", drawPanels);
  drawPanels();
}

/** Intervals of many rows would cover the points: they are off until the reader asks for them. */
const INTERVALS_AT_MOST = 80;

async function start() {
  await data;
  if (page.rows.length > INTERVALS_AT_MOST) {
    document.querySelector("#pareto-bars").checked = false;
    document.querySelector("#pareto-note").append(` The 95 % intervals of ${page.rows.length} rows would cover the points and are off at first; the box above draws them.`);
  }
  if (page.panels) startPanels();
  options(document.querySelector("#pareto-x"), page.costs);
  options(document.querySelector("#pareto-y"), page.scores);
  options(document.querySelector("#curves-y"), page.scores);
  const dials = new Map();
  for (const row of page.rows) if (row.dial !== null) dials.set(row.dial, (dials.get(row.dial) || new Set()).add(row.value));
  for (const [dial] of [...dials].filter(([, values]) => values.size > 1).sort((a, b) => b[1].size - a[1].size)) document.querySelector("#curves-dial").append(new Option(dial.replace(/_/g, " "), dial));
  await ready;
  const draw = () => { drawPareto(); drawCurves(); document.querySelectorAll(".plot.small").forEach((box) => box.redraw()); };
  for (const control of document.querySelectorAll("#pareto select, #pareto input")) control.addEventListener("change", drawPareto);
  for (const control of document.querySelectorAll("#curves select, #curves input")) control.addEventListener("change", drawCurves);
  query.addEventListener("change", draw);
  draw();
  for (const plot of ["pareto-plot", "curves-plot"].filter((id) => document.getElementById(id).on)) {
    document.getElementById(plot).on("plotly_click", ({points}) => { if (points[0].customdata) goTo(points[0].customdata); });
  }
  document.documentElement.dataset.state = "ready";
}

/** Paper has no clicks: what is folded is printed open, and folded again afterwards. */
const folded = [];
window.addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((part) => { folded.push(part); part.open = true; }));
window.addEventListener("afterprint", () => folded.splice(0).forEach((part) => { part.open = false; }));

start().catch((error) => {
  const problem = document.querySelector("#problem");
  problem.textContent = `The interactive part of the page cannot be shown: ${error.message}. Table, figures and notes are complete.`;
  problem.hidden = false;
  document.documentElement.dataset.state = "failed";
});
