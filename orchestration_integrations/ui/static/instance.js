// The page of one instance. What is read is drawn anew at each change; the forms stay as they are.

import { ask, h, show } from "./dom.js";
import { graph } from "./graph.js";
import { rawBox } from "./raw.js";
import { act, actsAllowed, follow } from "./server.js";
import { badge, between, clock, count, countdown, counting, shortId, time, toneOf } from "./words.js";

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
  const moneyHead = h("h2", { id: "money" }, "Money");
  const actions = actionPanel(path, id);
  const raw = rawBox(`${path}/raw`, "Histories, as the server sent them", signal);
  show(place,
    h("p", { class: "crumbs" }, h("a", { href: "#/instances" }, "← Instances")),
    head, banner, problem, warnings,
    h("div", { class: "columns" },
      h("section", { "aria-labelledby": "timeline" }, h("h2", { id: "timeline" }, "Stages"), stages),
      h("div", {}, actions.element, h("section", { "aria-labelledby": "money" }, moneyHead, money))),
    raw.element);

  function tell(text) {
    problem.hidden = !text;
    problem.textContent = text;
  }

  function draw(view) {
    show(head, heading(view));
    banner.className = `banner ${view.headline.tone}`;
    if (status.textContent !== view.headline.text) status.textContent = view.headline.text;
    const until = view.headline.until;
    show(counter, ...(until ? [`${view.headline.label} `, countdown(until)].map((part) => typeof part === "string" ? document.createTextNode(part) : part) : []));
    show(warnings, view.warnings.map((text) => h("p", { class: "message wait" }, text)),
      [definitionText(view.workflow), ...view.problems].filter(Boolean).map((text) => h("p", { class: "message idle" }, text)));
    show(stages, view.stages.map(stage));
    moneyHead.textContent = view.money.heading;
    show(money, moneyOf(view));
    actions.update(view);
    raw.refresh();
  }

  const asOf = (data) => data.readAt ? ` What is shown was read at ${clock(data.readAt * 1000)}.` : "";
  let missing = null; // what the last message said, where that denied the instance
  follow(`${path}/live`, signal, (name, data) => {
    live(name, data);
    if (name === "connected" || name === "recovered") tell("");
    if (name === "instance") { tell(""); draw(data); }
    if (name === "problem") tell(`It cannot be read just now: ${data.message}.${asOf(data)}`);
    if (name === "missing") tell(`No such instance is known: ${data.message}.`);
    if (name === "refused") tell(data.message);
    if (name === "over" && missing) tell(`No such instance was known at ${clock(Date.now())}: ${missing}. The page looks for it no more; load it again to look anew.`);
    if (name !== "still" && name !== "over") missing = name === "missing" ? data.message : null;
    if (name === "missing" && !stages.childElementCount) show(head, h("div", { class: "head" }, h("h1", {}, "Instance ", h("span", { class: "mono" }, id))));
  });
}

// What the last try to read its workflow came to, and of when the definition is that is shown.
function definitionText({ unknown, problem, asOf }) {
  if (!unknown && !problem) return "";
  const shown = asOf ? ` Its definition, as shown, was read at ${clock(asOf * 1000)}.` : " Its definition was never read.";
  return unknown ? `The server does not know its workflow${asOf ? " any more" : ""}: it may have been deleted.${shown}`
    : `Its workflow could not be read${asOf ? " again, so whether it is deleted is not known" : ""}: ${problem}.${shown}`;
}

function heading(view) {
  const copy = h("button", {
    type: "button", class: "small", "data-key": "copy",
    onclick: async () => { await navigator.clipboard?.writeText(view.id); copy.textContent = "Copied"; },
  }, "Copy id");
  const fact = (word, ...what) => h("div", {}, h("dt", {}, word), h("dd", {}, what));
  return [
    h("div", { class: "head" }, h("h1", {}, "Instance ", h("span", { class: "mono" }, view.id)), badge(view.standing), copy),
    h("dl", { class: "facts" },
      fact("Workflow", h("a", { href: `#/workflows/${encodeURIComponent(view.workflow.id)}`, "data-key": "workflow" }, view.workflow.name || shortId(view.workflow.id)), view.workflow.deleted ? h("span", { class: "chip" }, "deleted") : view.workflow.unknown ? h("span", { class: "chip" }, "not known") : null),
      view.runKey !== null ? fact("Run key", h("span", { class: "mono" }, view.runKey), view.round ? ` · round ${view.round}` : "") : null,
      fact("Created", time(view.createdAt)),
      view.endedAt ? fact("Ended", time(view.endedAt)) : null,
      fact(view.endedAt ? "Took" : "Running for", view.endedAt ? between(view.createdAt, view.endedAt) : view.createdAt ? counting(view.createdAt) : "–")),
  ];
}

const GOING_ON = new Set(["running", "listening", "gate", "checkpoint", "waiting", "failing"]);

function stage(one) {
  const lasted = one.endedAt ? between(one.startedAt, one.endedAt) : GOING_ON.has(one.state) ? counting(one.startedAt) : null;
  const times = one.startedAt ? [time(one.startedAt), lasted ? [" · ", lasted] : null] : [];
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
  if (view.money.nothing) return h("p", { class: "quiet" }, view.money.nothing);
  const rows = view.transactions.flatMap((one) => (one.movements.length ? one.movements : [null]).map((movement) => h("tr", {},
    h("td", { "data-label": "Transaction", class: "mono" }, one.id ?? "–", one.maybeRepeated ? h("span", { class: "chip bad" }, "perhaps twice") : null, one.asked ? h("span", { class: "chip", title: "Its service does not tell what it moved" }, "as asked") : null),
    h("td", { "data-label": "Ledger" }, one.ledger ?? "–"),
    h("td", { "data-label": "From", class: "mono" }, movement?.source ?? "–"),
    h("td", { "data-label": "To", class: "mono" }, movement?.destination ?? "–"),
    h("td", { "data-label": "Amount", class: "num", title: movement?.raw }, movement?.amount ?? "not told"))));
  return [
    view.graph.nodes.length ? h("div", { class: "graph", tabindex: "0", role: "group", "aria-label": "Graph of accounts" }, graph(view.graph, view.money.heading)) : null,
    view.money.more ? h("p", { class: "message wait" }, view.money.more) : null,
    rows.length ? h("table", { class: "rows slim" },
      h("caption", {}, count(view.transactions.length, "transaction")),
      h("thead", {}, h("tr", {}, ["Transaction", "Ledger", "From", "To", "Amount"].map((word) => h("th", { scope: "col", class: word === "Amount" && "num" }, word)))),
      h("tbody", {}, rows)) : null,
  ];
}

// What somebody sends is what was on screen when it was composed: a form never takes another target over by itself.
function actionPanel(path, id) {
  const said = h("p", { role: "alert" });
  const name = h("input", { id: "event", autocomplete: "off", spellcheck: "false", required: true, class: "mono" });
  const send = h("button", { type: "submit", class: "primary" });
  const cancel = h("button", { type: "button", class: "danger" }, "Cancel the run");
  const moved = h("p", { role: "alert" });
  const form = h("form", { hidden: true }, h("div", { class: "field" }, h("label", { for: "event" }, "Event"), h("div", { class: "inline" }, name, send)), moved);
  const element = h("section", { class: "panel actions", "aria-labelledby": "actions", hidden: true },
    h("h2", { id: "actions" }, "Act"), form, h("p", { class: "buttons" }, cancel), said);
  let composed = null; // the stage and event that the form is about
  let composedOnce = false;

  async function perform(button, doing, work) {
    button.disabled = true;
    said.className = "message idle";
    said.textContent = doing;
    try {
      const done = await work();
      const good = done.status ? done.sure && done.status !== "already_ended" : ["succeeded", "running"].includes(done.state);
      said.className = `message ${good ? "good" : "wait"}`;
      said.textContent = `At ${clock(Date.now())}: ${done.text}`;
    } catch (error) {
      said.className = "message bad";
      said.textContent = `At ${clock(Date.now())}: ${error.message}`;
    }
    button.disabled = false;
  }

  const naming = () => { send.textContent = name.value ? `Send event “${name.value}”` : "Send event"; };

  function compose(target) {
    [composed, composedOnce] = [target, true];
    name.value = target.event;
    show(moved);
    moved.className = "";
    naming();
  }

  // The run stands elsewhere: the form is empty, and is about nothing until somebody says so.
  function clear(awaits) {
    composed = null;
    name.value = "";
    naming();
    moved.className = "message wait";
    show(moved, document.createTextNode(`The run has moved on; the form was cleared. It now waits for “${awaits.event}” (stage ${awaits.stage} of the server's count). `),
      h("button", { type: "button", class: "small", "data-key": "compose", onclick: () => compose(awaits) }, `Fill in “${awaits.event}”`));
  }

  name.addEventListener("input", naming);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!composed) return;
    const target = { name: name.value, stage: composed.stage };
    perform(send, "Sending…", () => act(`${path}/events`, target,
      "The event may have been sent, and may have released its stage. Look at the stages: if the run still waits for it there, send it again from there; an event that was sent for a stage is never sent to another."));
  });
  cancel.addEventListener("click", async () => {
    const sure = await ask("Cancel this run?", `Instance ${id}. Money that has moved stays where it is. A payment that is under way may still arrive. The page then says what it saw.`, "Cancel the run");
    if (sure) {
      perform(cancel, "Cancelling, and looking until it has ended…", () => act(`${path}/cancel`, {},
        "The run may have been cancelled, and a payment of it may be under way. Look at its state: while it still runs, press again; a second cancel does no harm."));
    }
  });

  return {
    element,
    update(view) {
      if (!actsAllowed()) return;
      const running = view.state === "running";
      element.hidden = !running && !said.textContent;
      cancel.hidden = !running;
      form.hidden = !running || view.awaits === null;
      const awaits = view.awaits;
      if (awaits === null) {
        composed = null; // it stands nowhere: what was composed is of the past
      } else if (!composedOnce) {
        compose(awaits);
      } else if (composed === null ? moved.dataset.target !== targetOf(awaits) : targetOf(composed) !== targetOf(awaits)) {
        clear(awaits);
      }
      moved.dataset.target = awaits === null ? "" : targetOf(awaits);
    },
  };
}

const targetOf = ({ stage, event }) => `${stage} ${event}`;
