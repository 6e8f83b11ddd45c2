// The list of workflows, and the page of one: its stages, and a form that runs it.

import { h, show } from "./dom.js";
import { address } from "./instances.js";
import { rawBox } from "./raw.js";
import { act, actsAllowed, follow, get } from "./server.js";
import { clock, count, drawnOf, emptyText, shortId, time, unreadText } from "./words.js";

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
    const now = drawnOf(found);
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

// A definition never changes, but its workflow may be deleted, denied for a while, or come back: each reading says so anew.
export function workflow(place, id, { signal, live, title }) {
  title("Workflow");
  const path = `workflows/${encodeURIComponent(id)}`;
  const note = h("p", { class: "message bad", role: "status", hidden: true });
  const head = h("div", {}, h("div", { class: "head" }, h("h1", {}, "Workflow ", h("span", { class: "mono" }, id))));
  const shown = h("div", {}, h("p", { class: "quiet" }, "Reading…"));
  const running = h("div");
  const raw = rawBox(`${path}/raw`, "Definition, as the server keeps it", signal);
  show(place, h("p", { class: "crumbs" }, h("a", { href: "#/workflows" }, "← Workflows")), head, note, shown);

  let known = null; // as last read
  let drawn = "";
  let form = null; // stays as somebody has filled it in, also while it is not shown
  let looking = false;
  async function look() {
    if (looking) return;
    looking = true;
    const asked = Date.now();
    try {
      const found = await get(form ? path : `${path}?form=1`, signal);
      draw(found);
      live("recovered", found);
      note.hidden = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      live("problem");
      const gone = error.status === 404;
      const read = known ? ` What is shown was read at ${clock(known.readAt * 1000)}.` : "";
      note.textContent = !gone ? `It could not be read${known ? " again" : ""}: ${error.message}.${read}`
        : known ? `The server does not know it any more: it may have been deleted.${read}` : `The server knew no such workflow at ${clock(asked)}.`;
      note.hidden = false;
      if (gone) offer(`The server did not know the workflow at ${clock(asked)}.`);
      if (!known) show(shown);
    } finally {
      looking = false;
    }
  }

  // The form, or why there is none.
  function offer(reason) {
    if (reason) show(running, h("p", { class: "quiet" }, reason));
    else if (form.parentNode !== running) show(running, form);
  }

  function draw(found) {
    known = found;
    const reason = noForm(found);
    form ??= reason ? null : runForm(found);
    offer(reason);
    const now = drawnOf({ ...found, freshKey: null });
    if (now === drawn) return;
    drawn = now;
    title(found.name || "Workflow");
    show(head, h("div", { class: "head" }, h("h1", {}, found.name || "(unnamed)"), marks(found)));
    show(shown,
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "Id"), h("dd", { class: "mono" }, found.id)),
        h("div", {}, h("dt", {}, "Created"), h("dd", {}, time(found.createdAt))),
        found.deletedAt ? h("div", {}, h("dt", {}, "Deleted"), h("dd", {}, time(found.deletedAt))) : null,
        h("div", {}, h("dt", {}, "Instances"), h("dd", {}, h("a", { href: address({ workflow: found.id }), "data-key": "instances" }, "Show its instances")))),
      h("div", { class: "columns" },
        h("section", { "aria-labelledby": "stages" }, h("h2", { id: "stages" }, "Stages"),
          h("ol", { class: "timeline" }, found.timeline.map((stage) => h("li", { class: `stage idle ${stage.role}` },
            h("span", { class: "marker", "aria-hidden": "true" }),
            h("div", {}, h("h3", {}, stage.title), h("p", { class: "what" }, stage.text)))))),
        h("section", { "aria-labelledby": "run" }, h("h2", { id: "run" }, "Run it"), running)),
      raw.element);
  }

  look();
  const again = setInterval(look, LOOK_EVERY);
  signal.addEventListener("abort", () => clearInterval(again));
  follow("live", signal, (name, data) => {
    live(name, name === "lost" ? data : {});
    if (name === "changed") look();
  });
}

// Why a workflow cannot be run from here; empty where it can.
function noForm(found) {
  if (!actsAllowed()) return "This page only reads. Start its server with --allow-actions to run workflows from here.";
  if (found.deletedAt) return "The workflow is deleted.";
  if (found.checkpoints) return "This workflow has checkpoints: a run waits at each until its owner lets it pass, and a page that may be closed is no owner. Run it by run_once, Airflow, Prefect or the command run.";
  return "";
}

function runForm(found) {
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
