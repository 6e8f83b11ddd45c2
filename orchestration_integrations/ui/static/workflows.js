// The list of workflows, and the page of one: its stages, and a form that runs it.

import { h, show } from "./dom.js";
import { act, actsAllowed, follow, get } from "./server.js";
import { address } from "./instances.js";
import { count, shortId, time } from "./words.js";

export function workflows(place, query, { signal, live, title }) {
  title("Workflows");
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Reading the list…"));
  show(place, h("div", { class: "head" }, h("h1", {}, "Workflows")), list);

  async function refresh() {
    try {
      draw(await get("workflows", signal));
    } catch (error) {
      if (error.name !== "AbortError") show(list, h("p", { class: "message bad", role: "alert" }, error.message));
    }
  }

  let drawn = "";
  function draw(found) {
    const now = JSON.stringify(found);
    if (now === drawn) return; // what has not changed stays, under the pointer too
    drawn = now;
    if (!found.rows.length) {
      show(list, h("p", { class: found.problem ? "message bad" : "quiet empty" }, found.problem ? `The list could not be read: ${found.problem}`
        : found.reading ? "Reading the list…" : "There is no workflow yet."));
      return;
    }
    show(list, h("table", { class: "rows" },
      h("caption", { class: "hidden" }, "Workflows, the newest first"),
      h("thead", {}, h("tr", {}, ["Workflow", "Stages", "Running", "Succeeded", "Failed", "Cancelled", "Created"].map((word) => h("th", { scope: "col", class: !["Workflow", "Created"].includes(word) && "num" }, word)))),
      h("tbody", {}, found.rows.map((one) => h("tr", {},
        h("td", { "data-label": "Workflow" }, h("a", { class: "row", href: `#/workflows/${encodeURIComponent(one.id)}`, "data-key": one.id, title: one.id }, one.name || shortId(one.id)), marks(one)),
        h("td", { "data-label": "Stages", class: "num" }, one.stages),
        ["running", "succeeded", "failed", "cancelled"].map((state) => h("td", { "data-label": state[0].toUpperCase() + state.slice(1), class: "num" },
          one.counts[state] ? h("a", { href: address({ workflow: one.id, state }), "data-key": `${state}-${one.id}`, "aria-label": `${one.counts[state]} ${state}` }, one.counts[state].toLocaleString()) : h("span", { class: "quiet" }, "0"))),
        h("td", { "data-label": "Created" }, time(one.createdAt)))))));
  }

  refresh();
  follow("live", signal, (name) => {
    live(name);
    if (name === "changed" || name === "connected") refresh();
  });
}

const marks = (one) => [
  one.gate ? h("span", { class: "chip" }, "gate") : null,
  one.checkpoints ? h("span", { class: "chip" }, count(one.checkpoints, "checkpoint")) : null,
];

export async function workflow(place, id, { signal, title }) {
  title("Workflow");
  const found = await get(`workflows/${encodeURIComponent(id)}`, signal);
  title(found.name || "Workflow");
  show(place,
    h("p", { class: "crumbs" }, h("a", { href: "#/workflows" }, "← Workflows")),
    h("div", { class: "head" }, h("h1", {}, found.name || "(unnamed)"), marks(found)),
    h("dl", { class: "facts" },
      h("div", {}, h("dt", {}, "Id"), h("dd", { class: "mono" }, found.id)),
      h("div", {}, h("dt", {}, "Created"), h("dd", {}, time(found.createdAt))),
      found.deletedAt ? h("div", {}, h("dt", {}, "Deleted"), h("dd", {}, time(found.deletedAt))) : null,
      h("div", {}, h("dt", {}, "Instances"), h("dd", {}, h("a", { href: address({ workflow: found.id }) }, "Show its instances")))),
    h("div", { class: "columns" },
      h("section", { "aria-labelledby": "stages" }, h("h2", { id: "stages" }, "Stages"),
        h("ol", { class: "timeline" }, found.timeline.map((stage) => h("li", { class: `stage idle ${stage.role}` },
          h("span", { class: "marker", "aria-hidden": "true" }),
          h("div", {}, h("h3", {}, stage.title), h("p", { class: "what" }, stage.text)))))),
      h("section", { "aria-labelledby": "run" }, h("h2", { id: "run" }, "Run it"), runForm(found))),
    h("details", { class: "raw" }, h("summary", {}, "Definition, as the server keeps it"), h("pre", { tabindex: "0" }, JSON.stringify(found.raw, null, 2))));
}

function runForm(found) {
  if (!actsAllowed()) return h("p", { class: "quiet" }, "This page only reads. Start its server with --allow-actions to run workflows from here.");
  if (found.deletedAt) return h("p", { class: "quiet" }, "The workflow is deleted.");
  if (found.checkpoints) return h("p", { class: "quiet" }, "This workflow has checkpoints: a run waits at each until its owner lets it pass, and a page that may be closed is no owner. Run it by run_once, Airflow, Prefect or the command run.");
  const said = h("p", { role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Run");
  const key = h("input", { id: "run-key", value: `page-${new Date().toISOString().slice(0, 19)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`, required: true, autocomplete: "off", spellcheck: "false", class: "mono", "aria-describedby": "run-key-hint" });
  const fields = found.variables.map(({ name, paths }, number) => {
    const input = h("input", { id: `variable-${number}`, required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": `variable-${number}-hint` });
    return { name, input, field: h("div", { class: "field" }, h("label", { for: input.id }, name), input, h("p", { class: "hint", id: `${input.id}-hint` }, paths.join(", "))) };
  });
  const send = async (event) => {
    event.preventDefault();
    button.disabled = true;
    said.textContent = "";
    said.className = "";
    try {
      const variables = Object.fromEntries(fields.map(({ name, input }) => [name, input.value]));
      const done = await act(`workflows/${encodeURIComponent(found.id)}/runs`, { variables, runKey: key.value });
      location.hash = `#/instances/${encodeURIComponent(done.id)}`;
    } catch (error) {
      said.className = "message bad";
      said.textContent = error.message;
      button.disabled = false;
    }
  };
  return h("form", { class: "panel", onsubmit: send },
    fields.length ? fields.map(({ field }) => field) : h("p", { class: "quiet" }, "It needs no variables."),
    h("div", { class: "field" }, h("label", { for: "run-key" }, "Run key"), key,
      h("p", { class: "hint", id: "run-key-hint" }, found.gate ? "The same key again finds the same run: nothing is paid twice." : "This workflow has no gate: a lost answer is told, and never sent again.")),
    h("p", { class: "buttons" }, button), said);
}
