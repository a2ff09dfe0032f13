// What a row consists of: setting, seeds, costs, curves, environment, configuration, command. Text is set as text, never as markup.
"use strict";

/** Make an element with text, classes and children. */
function make(tag, {text, cls, ...attributes} = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (cls) element.className = cls;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const pairs = (entries) => make("table", {}, make("tbody", {}, ...entries.map(([name, value]) =>
  make("tr", {}, make("th", {text: name, scope: "row"}), make("td", {text: value})))));

function block(title, wide, ...children) {
  return make("div", {cls: wide ? "wide" : ""}, make("h4", {text: title}), ...children);
}

/** A command with a button that copies it. */
function command(text) {
  const button = make("button", {text: "Copy", cls: "copy", type: "button"});
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.nextElementSibling);
      button.textContent = "Selected: press Ctrl+C";
    }
  });
  return make("div", {}, button, make("pre", {text}));
}

function trialTable(row) {
  const tasks = Object.keys(page.tasks);
  const head = make("tr", {}, ...["Seed", "Trial", "Status", ...tasks.map((task) => page.tasks[task]), "Minutes"].map((text) => make("th", {text, scope: "col"})));
  const lines = row.trials.map((trial) => make("tr", {},
    make("td", {text: trial.seed}), make("td", {}, make("code", {text: trial.run_id})),
    make("td", {text: trial.status === "ok" ? "ok" : `${trial.status}: ${trial.reason}`}),
    ...tasks.map((task) => make("td", {cls: "number", text: trial.tasks.includes(task) ? shownNumber(trial.metrics[task]) : ""})),
    make("td", {cls: "number", text: shownNumber(trial.minutes)})));
  const absent = row.absent.map(([id, why]) => make("tr", {}, make("td", {text: ""}), make("td", {}, make("code", {text: id})), make("td", {text: why})));
  return make("div", {cls: "scroll", tabindex: "0"}, make("table", {cls: "trials"}, make("thead", {}, head), make("tbody", {}, ...lines, ...absent)));
}

function lossBlock(row) {
  const tasks = Object.keys(page.tasks).filter((task) => row.trials.some((trial) => trial.history?.losses[task]));
  if (!tasks.length) return block("Training loss", false, make("p", {text: "No trial of this row kept a history."}));
  const choice = make("select", {"aria-label": "Task of the training loss"}, ...tasks.map((task) => new Option(page.tasks[task], task)));
  const box = make("div", {cls: "plot small", role: "img", "aria-label": "Training loss over epochs, one line a seed"});
  const draw = () => ready.then(() => drawLosses(box, row, choice.value));
  choice.addEventListener("change", draw);
  box.redraw = draw;
  setTimeout(draw);
  return block("Training loss", false, choice, box);
}

function fill(box, row, number) {
  const scores = Object.entries(page.scores).map(([key, axis]) => [axis.title, withInterval(row.scores[key])]);
  const costs = Object.entries(page.costs).map(([key, axis]) => [axis.title, withInterval(row.costs[key]) +
    (row.ranges[key] ? `; single measurements${row.kind === "single_task" ? " of one model" : ""}, 5-95 %: ${row.ranges[key].map(shownNumber).join(" to ")}` : "")]);
  const groups = Object.entries(row.params || {}).map(([name, group]) => [name.replace(/_/g, " "), `${group.trainable.toLocaleString("en")} of ${group.total.toLocaleString("en")}`]);
  const setting = [["Row", `${number}: ${row.label}`], ["Trained", row.kind === "single_task" ? "one model a task" : "one model for all tasks"],
    ["Dial", row.dial === null ? "none" : `${row.dial} = ${row.value}`], ["Seeds that count", `${row.n} of ${row.planned}${row.missing ? `; ${row.missing}` : ""}`],
    ["Reference of Δm", row.reference ? "yes" : "no"]];
  box.append(
    block("Run this row again", true, command(row.command)),
    block("Run one trial again and compare", true, command(row.reproduce)),
    block("Setting", false, pairs(setting)),
    block("Scores: mean [95 % interval over seeds]", false, pairs(scores)),
    block("Costs: mean [95 % interval over seeds]", false, pairs(costs)),
    block("Trainable parameters by group, one model", false, pairs(groups)),
    lossBlock(row),
    block("Environment", false, pairs(Object.entries(row.env).map(([key, values]) => [key, values.join(", ")]))),
    block("Trials", true, trialTable(row)),
    block("Configuration", true, make("pre", {text: JSON.stringify(row.config, null, 1)})),
  );
}

/** Open or close a row's detail. */
async function toggle(line, open) {
  const button = line.querySelector("button.open"), number = Number(line.dataset.row);
  const present = line.nextElementSibling?.classList.contains("detail") ? line.nextElementSibling : null;
  if (open === undefined) open = !present;
  if (open === Boolean(present)) return;
  button.setAttribute("aria-expanded", String(open));
  if (!open) return void present.remove();
  const box = make("div", {cls: "detail-in"});
  line.after(make("tr", {cls: "detail"}, make("td", {colspan: line.children.length}, box)));
  await data;
  fill(box, page.rows[number - 1], number);
}

for (const line of lines) line.querySelector("button.open").addEventListener("click", () => toggle(line));

/** Open a row from elsewhere on the page and go there. */
async function goTo(number) {
  const line = document.querySelector(`#row-${number}`);
  if (line.hidden) {
    filter.value = family.value = "";
    applyFilter();
  }
  await toggle(line, true);
  line.scrollIntoView({block: "center"});
  line.classList.add("target");
  setTimeout(() => line.classList.remove("target"), 2000);
  line.querySelector("button.open").focus({preventScroll: true});
}
