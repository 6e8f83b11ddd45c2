// The list of workflows, and the page of one: its stages, and a form that runs it.

import { h, show } from "./dom.js";
import { act, actsAllowed, follow, get } from "./server.js";
import { rawText } from "./instance.js";
import { address } from "./instances.js";
import { clock, count, emptyText, shortId, time, unreadText } from "./words.js";

const LOOK_EVERY = 5_000; // milliseconds

export function workflows(place, query, { signal, live, title }) {
  title("Workflows");
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Reading the list…"));
  const note = h("p", { class: "quiet", role: "status" });
  show(place, h("div", { class: "head" }, h("h1", {}, "Workflows")), note, list);

  async function refresh() {
    drawnNow = false;
    try {
      draw(await get("workflows", signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      drawn = "";
      live("problem");
      show(list, h("p", { class: "message bad", role: "alert" }, error.message));
    }
  }

  let drawn = "";
  let drawnNow = false; // what is drawn is all that the page's server knows
  function draw(found) {
    drawnNow = true;
    live(found.problem ? "problem" : "recovered", found);
    const now = JSON.stringify({ ...found, readAt: found.problem ? found.readAt : null, age: null, readingFor: null });
    if (now === drawn) return; // what has not changed stays, under the pointer too
    drawn = now;
    note.textContent = unreadText(found);
    note.className = found.problem ? "message bad" : "quiet";
    if (!found.rows.length) {
      show(list, h("p", { class: "quiet empty" }, emptyText(found, "No workflow is in the list.")));
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
  follow("live", signal, (name, data) => {
    live(name, name === "lost" ? data : name === "still" && drawnNow ? data.workflows : {});
    if (name === "changed" || name === "connected") refresh();
  });
}

const marks = (one) => [
  one.gate ? h("span", { class: "chip" }, "gate") : null,
  one.checkpoints ? h("span", { class: "chip" }, count(one.checkpoints, "checkpoint")) : null,
];

export async function workflow(place, id, { signal, live, title }) {
  title("Workflow");
  const path = `workflows/${encodeURIComponent(id)}`;
  const at = () => ({ began: performance.now(), readAt: Date.now() / 1000 });
  const note = h("p", { class: "message bad", role: "status", hidden: true });
  let lastRead = null;
  function tellAge({ began, readAt }) {
    lastRead = readAt;
    note.hidden = true;
    live("recovered", { readAt, age: (performance.now() - began) / 1000 });
  }

  const first = at();
  const found = await get(`${path}?form=1`, signal);
  tellAge(first);
  const running = h("div", {}, runForm(found));
  const raw = h("pre", { tabindex: "0" }, "Reading…");
  const rawBox = h("details", { class: "raw", ontoggle: () => rawBox.open && readRaw() }, h("summary", {}, "Definition, as the server keeps it"), raw);

  async function readRaw() {
    try {
      raw.textContent = rawText(await get(`${path}/raw`, signal));
    } catch (error) {
      if (error.name !== "AbortError") raw.textContent = error.message;
    }
  }

  // A definition never changes, but it may be deleted while its form is open.
  async function lookAgain() {
    const asked = at();
    try {
      if ((await get(path, signal)).deletedAt) show(running, h("p", { class: "quiet" }, "The workflow is deleted."));
      tellAge(asked);
    } catch (error) {
      if (error.name === "AbortError") return;
      live("problem");
      const gone = error.status === 404;
      note.textContent = `${gone ? "The server does not know it any more: it may have been deleted" : `It could not be read again: ${error.message}`}. What is shown was read at ${clock(lastRead * 1000)}.`;
      note.hidden = false;
      if (gone) show(running, h("p", { class: "quiet" }, "The server does not know the workflow any more."));
    }
  }

  title(found.name || "Workflow");
  show(place,
    h("p", { class: "crumbs" }, h("a", { href: "#/workflows" }, "← Workflows")),
    h("div", { class: "head" }, h("h1", {}, found.name || "(unnamed)"), marks(found)),
    note,
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
      h("section", { "aria-labelledby": "run" }, h("h2", { id: "run" }, "Run it"), running)),
    rawBox);
  if (!found.deletedAt) {
    const again = setInterval(lookAgain, LOOK_EVERY);
    signal.addEventListener("abort", () => clearInterval(again));
    follow("live", signal, (name, data) => {
      live(name, name === "lost" ? data : {});
      if (name === "changed") lookAgain();
    });
  }
}

function runForm(found) {
  if (!actsAllowed()) return h("p", { class: "quiet" }, "This page only reads. Start its server with --allow-actions to run workflows from here.");
  if (found.deletedAt) return h("p", { class: "quiet" }, "The workflow is deleted.");
  if (found.checkpoints) return h("p", { class: "quiet" }, "This workflow has checkpoints: a run waits at each until its owner lets it pass, and a page that may be closed is no owner. Run it by run_once, Airflow, Prefect or the command run.");
  const said = h("p", { role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Run");
  const key = h("input", { id: "run-key", value: found.freshKey, required: true, autocomplete: "off", spellcheck: "false", class: "mono", "aria-describedby": "run-key-hint" });
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
      const done = await act(`workflows/${encodeURIComponent(found.id)}/runs`, { variables, runKey: key.value }, found.gate
        ? "The run may have started. Press again with the same key: it will find that run, and starts one only if there is none."
        : "The run may have started. Press again with the same key: the page then looks for that run, and never starts a second one under this key; where it cannot tell, it says that a run may exist.");
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
      h("p", { class: "hint", id: "run-key-hint" }, found.gate ? "The same key again finds the same run: nothing is paid twice."
        : "This workflow has no gate, so it is started once with this fresh key. The same key again starts nothing: it looks for that run, and says that a run may exist where it cannot find it. A key of your own counts as used before.")),
    h("p", { class: "buttons" }, button), said);
}
