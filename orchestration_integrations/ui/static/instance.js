// The page of one instance. What is read is drawn anew at each change; the forms stay as they are.

import { ask, h, show } from "./dom.js";
import { graph } from "./graph.js";
import { act, actsAllowed, follow, get } from "./server.js";
import { badge, between, count, countdown, counting, noteServerTime, shortId, time, toneOf } from "./words.js";

export function instance(place, id, { signal, live, title }) {
  title(`Instance ${shortId(id)}`);
  const path = `instances/${encodeURIComponent(id)}`;
  const head = h("div");
  const status = h("p", { role: "status" });
  const counter = h("p", { class: "counter" });
  const banner = h("div", { class: "banner" }, status, counter);
  const problem = h("p", { class: "message bad", hidden: true, role: "alert" });
  const warnings = h("div");
  const stages = h("ol", { class: "timeline" });
  const money = h("div");
  const raw = h("pre", { tabindex: "0" }, "Reading…");
  const actions = actionPanel(path);
  const rawBox = h("details", { class: "raw", ontoggle: () => rawBox.open && readRaw() }, h("summary", {}, "Histories, as the server sent them"), raw);
  show(place,
    h("p", { class: "crumbs" }, h("a", { href: "#/instances" }, "← Instances")),
    head, banner, problem, warnings,
    h("div", { class: "columns" },
      h("section", { "aria-labelledby": "timeline" }, h("h2", { id: "timeline" }, "Stages"), stages),
      h("div", {}, actions.element, h("section", { "aria-labelledby": "money" }, h("h2", { id: "money" }, "Money moved"), money))),
    rawBox);

  async function readRaw() {
    try {
      raw.textContent = JSON.stringify(await get(`${path}/history`, signal), null, 2);
    } catch (error) {
      if (error.name !== "AbortError") raw.textContent = error.message;
    }
  }

  function tell(text) {
    problem.hidden = !text;
    problem.textContent = text;
  }

  function draw(view) {
    noteServerTime(view.now);
    show(head, heading(view));
    banner.className = `banner ${view.headline.tone}`;
    if (status.textContent !== view.headline.text) status.textContent = view.headline.text;
    const until = view.headline.until;
    show(counter, ...(until ? [`${view.headline.label} `, countdown(until)].map((part) => typeof part === "string" ? document.createTextNode(part) : part) : []));
    show(warnings, view.warnings.map((text) => h("p", { class: "message wait" }, text)), view.problems.map((text) => h("p", { class: "message idle" }, text)));
    show(stages, view.stages.map(stage));
    show(money, moneyOf(view));
    actions.update(view);
    if (rawBox.open) readRaw();
  }

  follow(`${path}/live`, signal, (name, data) => {
    live(name);
    if (name === "instance") { tell(""); draw(data); }
    if (name === "problem") tell(`It cannot be read just now: ${data.message}`);
    if (name === "recovered") tell("");
    if (name === "refused") tell(data.message);
    if (name === "refused" && data.status === 401) dispatchEvent(new Event("orchestration-token-needed"));
  });
}

function heading(view) {
  const copy = h("button", {
    type: "button", class: "small", "data-key": "copy",
    onclick: async () => { await navigator.clipboard?.writeText(view.id); copy.textContent = "Copied"; },
  }, "Copy id");
  const fact = (word, ...what) => h("div", {}, h("dt", {}, word), h("dd", {}, what));
  return [
    h("div", { class: "head" }, h("h1", {}, "Instance ", h("span", { class: "mono" }, view.id)), badge(view.state), copy),
    h("dl", { class: "facts" },
      fact("Workflow", h("a", { href: `#/workflows/${encodeURIComponent(view.workflow.id)}`, "data-key": "workflow" }, view.workflow.name || shortId(view.workflow.id))),
      view.runKey !== null ? fact("Run key", h("span", { class: "mono" }, view.runKey), view.round ? ` · round ${view.round}` : "") : null,
      fact("Created", time(view.createdAt)),
      view.endedAt ? fact("Ended", time(view.endedAt)) : null,
      fact(view.endedAt ? "Took" : "Running for", view.endedAt ? between(view.createdAt, view.endedAt) : view.createdAt ? counting(view.createdAt) : "–")),
  ];
}

function stage(one) {
  const times = one.startedAt ? [time(one.startedAt), " · ", one.endedAt ? between(one.startedAt, one.endedAt) : one.state === "done" || one.state === "cancelled" ? "" : counting(one.startedAt)] : [];
  const more = [];
  if (one.state === "failing") {
    more.push(h("p", { class: "message bad" }, h("strong", {}, `Failing, attempt ${one.attempt}: `), one.lastFailure ?? "no reason is given",
      one.nextTry ? ["; next try ", countdown(one.nextTry)] : ""));
  } else if (one.error && one.state !== "cancelled") {
    more.push(h("p", { class: "message bad" }, one.error));
  }
  if (one.state === "waiting" && one.until) more.push(h("p", { class: "quiet" }, "goes on ", countdown(one.until)));
  if (one.state === "running" && one.activity) more.push(h("p", { class: "quiet" }, `${one.activity} is under way`));
  return h("li", { class: `stage ${toneOf(one.state)} ${one.role} is-${one.state}` },
    h("span", { class: "marker", "aria-hidden": "true" }),
    h("div", {},
      h("div", { class: "line" }, h("h3", {}, one.title), badge(one.state)),
      one.text ? h("p", { class: "what" }, one.text) : null,
      h("p", { class: "quiet times" }, times), more));
}

function moneyOf(view) {
  const known = view.complete ? "" : " Not all that it did could be read: there may be more.";
  if (!view.graph.nodes.length) return h("p", { class: "quiet" }, `Nothing has moved yet.${known}`);
  const rows = view.transactions.flatMap((one) => (one.movements.length ? one.movements : [null]).map((movement) => h("tr", {},
    h("td", { "data-label": "Transaction", class: "mono" }, one.id ?? "–", one.maybeRepeated ? h("span", { class: "chip bad" }, "perhaps twice") : null),
    h("td", { "data-label": "Ledger" }, one.ledger ?? "–"),
    h("td", { "data-label": "From", class: "mono" }, movement?.source ?? "–"),
    h("td", { "data-label": "To", class: "mono" }, movement?.destination ?? "–"),
    h("td", { "data-label": "Amount", class: "num", title: movement?.raw }, movement?.amount ?? "–"))));
  return [
    h("div", { class: "graph", tabindex: "0", role: "group", "aria-label": "Graph of accounts" }, graph(view.graph)),
    known ? h("p", { class: "message wait" }, known.trim()) : null,
    rows.length ? h("table", { class: "rows slim" },
      h("caption", {}, count(view.transactions.length, "transaction")),
      h("thead", {}, h("tr", {}, ["Transaction", "Ledger", "From", "To", "Amount"].map((word) => h("th", { scope: "col", class: word === "Amount" && "num" }, word)))),
      h("tbody", {}, rows)) : null,
  ];
}

function actionPanel(path) {
  const said = h("p", { role: "alert" });
  const name = h("input", { id: "event", autocomplete: "off", spellcheck: "false", required: true, class: "mono" });
  const send = h("button", { type: "submit", class: "primary" }, "Send event");
  const cancel = h("button", { type: "button", class: "danger" }, "Cancel the run");
  const form = h("form", { hidden: true }, h("div", { class: "field" }, h("label", { for: "event" }, "Event"), h("div", { class: "inline" }, name, send)));
  const element = h("section", { class: "panel actions", "aria-labelledby": "actions", hidden: true },
    h("h2", { id: "actions" }, "Act"), form, h("p", { class: "buttons" }, cancel), said);
  let stageNumber = null;
  let proposed = null;

  async function perform(button, doing, work) {
    button.disabled = true;
    said.className = "message idle";
    said.textContent = doing;
    try {
      const done = await work();
      const good = done.status ? done.sure && done.status !== "already_ended" : ["succeeded", "running"].includes(done.state);
      said.className = `message ${good ? "good" : "wait"}`;
      said.textContent = done.text;
    } catch (error) {
      said.className = "message bad";
      said.textContent = error.message;
    }
    button.disabled = false;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    perform(send, "Sending…", () => act(`${path}/events`, { name: name.value, stage: name.value === proposed ? stageNumber : null }));
  });
  cancel.addEventListener("click", async () => {
    const sure = await ask("Cancel this run?", "Money that has moved stays where it is. A payment that is under way may still arrive. The page then says what it saw.", "Cancel the run");
    if (sure) perform(cancel, "Cancelling, and looking until it has ended…", () => act(`${path}/cancel`));
  });

  return {
    element,
    update(view) {
      if (!actsAllowed()) return;
      const running = view.state === "running";
      element.hidden = !running && !said.textContent;
      cancel.hidden = !running;
      form.hidden = !running || view.awaits === null;
      if (view.awaits !== null && proposed !== view.awaits.event) {
        proposed = view.awaits.event;
        name.value = proposed;
      }
      stageNumber = view.awaits?.stage ?? null;
    },
  };
}
