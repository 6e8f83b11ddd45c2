// The list of triggers, and the page of one: its filter and variables, and each time that it fired. Reads only.

import { h, show } from "./dom.js";
import { follow, get } from "./server.js";
import { badge, clock, count, drawnOf, emptyText, shortId, time, unreadText } from "./words.js";

const AGAIN = 5_000; // milliseconds; what nobody looks at is not read, so those who look ask again
const UNROUTED = "No server has answered this call; a gateway whose server is away answers alike. Servers of generation 1 have no triggers.";

const address = (path, page) => `#/${path}${page > 0 ? `?page=${page}` : ""}`;
const workflowLink = ({ id, name, deleted, unlistedAt }, key) => [
  h("a", { href: `#/workflows/${encodeURIComponent(id)}`, "data-key": key, title: id }, name || shortId(id)),
  deleted ? h("span", { class: "chip" }, "deleted") : null,
  unlistedAt ? h("span", { class: "chip", title: `The list of workflows, as read at ${clock(unlistedAt * 1000)}, does not have it: it may be newer, or deleted.` }, "not in the list") : null,
];
const variablesOf = (one) => one.variables.length
  ? one.variables.map(({ name, expression }) => h("div", { class: "mono" }, `${name} = ${expression}`)) : h("span", { class: "quiet" }, "–");

function pager(found, path, word) {
  const to = (n, text, key) => n < 0 || n >= found.pages ? h("span", { class: "quiet" }, text)
    : h("a", { href: address(path, n), "data-key": key, rel: key }, text);
  return h("nav", { class: "pager", "aria-label": "Pages" },
    h("span", { class: "quiet" }, `${count(found.total, word)}, page ${found.page + 1} of ${found.pages}`),
    to(found.page - 1, "← Back", "prev"), to(found.page + 1, "Further →", "next"));
}

// Reads now, at news, and now and then; draws what has changed, and leaves the rest as it is.
function keepReading(path, { signal, live }, draw, failed) {
  let drawn = "";
  async function refresh() {
    try {
      const found = await get(path, signal);
      live(found.problem || found.missing || found.unrouted ? "problem" : "recovered", found);
      const now = drawnOf(found);
      if (now === drawn) return;
      drawn = now;
      draw(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      drawn = "";
      live("problem");
      failed(error);
    }
  }
  refresh();
  const again = setInterval(refresh, AGAIN);
  signal.addEventListener("abort", () => clearInterval(again));
  follow("live", signal, (name, data) => {
    live(name, name === "lost" ? data : {});
    if (name === "changed" || name === "connected") refresh();
  });
}

export function triggers(place, query, context) {
  const page = query.get("page") ?? "0";
  context.title("Triggers");
  const note = h("p", { class: "quiet", role: "status" });
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Reading the list…"));
  show(place, h("div", { class: "head" }, h("h1", {}, "Triggers")), note, list);

  function draw(found) {
    note.textContent = unreadText(found);
    note.className = found.problem ? "message bad" : "quiet";
    if (!found.rows.length) {
      show(list, h("p", { class: "quiet empty" }, found.unrouted ? UNROUTED
        : emptyText(found, "No trigger is in the list.")));
      return;
    }
    show(list, h("table", { class: "rows" },
      h("caption", { class: "hidden" }, "Triggers, by event, the newest first"),
      h("thead", {}, h("tr", {}, ["Event", "Workflow", "Filter", "Variables", "Created"].map((word) => h("th", { scope: "col" }, word)))),
      h("tbody", {}, found.rows.map((one) => h("tr", {},
        h("td", { "data-label": "Event" }, h("div", {}, h("a", { class: "row mono", href: `#/triggers/${encodeURIComponent(one.id)}`, "data-key": one.id, title: one.id }, one.event || "(none)"), one.name ? h("div", { class: "hint" }, one.name) : null)),
        h("td", { "data-label": "Workflow" }, h("div", {}, workflowLink(one.workflow, `w-${one.id}`))),
        h("td", { "data-label": "Filter", class: "mono expression" }, one.filter ?? h("span", { class: "quiet" }, "every event")),
        h("td", { "data-label": "Variables", class: "expression" }, h("div", {}, variablesOf(one))),
        h("td", { "data-label": "Created" }, time(one.createdAt)))))),
    pager(found, "triggers", "trigger"));
  }

  keepReading(`triggers?page=${encodeURIComponent(page)}`, context, draw, (error) => show(list, h("p", { class: "message bad", role: "alert" }, error.message)));
}

export function trigger(place, id, query, context) {
  const page = query.get("page") ?? "0";
  const path = `triggers/${encodeURIComponent(id)}`;
  const open = new Set(); // the events that somebody has opened stay open
  context.title("Trigger");
  const note = h("p", { class: "quiet", role: "status" });
  const head = h("div", {}, h("div", { class: "head" }, h("h1", {}, "Trigger ", h("span", { class: "mono" }, id))));
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Reading…"));
  show(place, h("p", { class: "crumbs" }, h("a", { href: "#/triggers" }, "← Triggers")), head, note, list);

  function draw(found) {
    note.textContent = found.missing ? (found.trigger ? `The server does not know this trigger any more: it may have been deleted. What is shown was read at ${clock(found.readAt * 1000)}.` : "The server knows no such trigger.")
      : found.unrouted ? UNROUTED : unreadText(found, "It");
    note.className = found.missing || found.unrouted || found.problem ? "message bad" : "quiet";
    if (found.trigger) {
      context.title(`Trigger ${found.trigger.event}`);
      show(head, heading(found.trigger));
    }
    if (!found.trigger) show(list, found.reading ? h("p", { class: "quiet" }, "Reading…") : null);
    else if (!found.rows.length) show(list, h("p", { class: "quiet empty" }, emptyText(found, "The server shows no time that it fired. An event that its filter stops leaves no trace.")));
    else show(list, h("table", { class: "rows" },
      h("caption", {}, "Each time that it fired, the newest first"),
      h("thead", {}, h("tr", {}, ["When", "Instance", "State", "Error", "Event"].map((word) => h("th", { scope: "col" }, word)))),
      h("tbody", {}, found.rows.map(occurrence))), pager(found, path, "occurrence"));
  }

  function occurrence(one, number) {
    const key = `${one.date} ${one.instance} ${number}`;
    const shown = h("details", { ontoggle: () => (shown.open ? open.add(key) : open.delete(key)), open: open.has(key) },
      h("summary", { "data-key": `e-${key}` }, "Show"), h("pre", { class: "event", tabindex: "0" }, one.event));
    return h("tr", {},
      h("td", { "data-label": "When" }, time(one.date)),
      h("td", { "data-label": "Instance" }, one.instance
        ? h("a", { class: "mono row", href: `#/instances/${encodeURIComponent(one.instance)}`, title: one.instance, "data-key": `i-${key}`, "aria-label": `Instance ${one.instance}` }, shortId(one.instance))
        : h("span", { class: "quiet" }, one.error ? "none was started" : "not told")),
      h("td", { "data-label": "State", class: one.state ? null : "none" }, one.state ? badge(one.state) : "–"),
      h("td", { "data-label": "Error", class: one.error ? "expression" : "none" }, one.error ?? "–"),
      h("td", { "data-label": "Event" }, shown));
  }

  keepReading(`${path}?page=${encodeURIComponent(page)}`, context, draw, (error) => show(list, h("p", { class: "message bad", role: "alert" }, error.message)));
}

function heading(one) {
  const fact = (word, ...what) => h("div", {}, h("dt", {}, word), h("dd", {}, what));
  return [
    h("div", { class: "head" }, h("h1", {}, "Trigger ", h("span", { class: "mono" }, one.event))),
    h("dl", { class: "facts" },
      one.name ? fact("Name", one.name) : null,
      fact("Workflow", workflowLink(one.workflow, "workflow")),
      fact("Filter", h("span", { class: "mono" }, one.filter ?? "every event")),
      fact("Variables", variablesOf(one)),
      fact("Created", time(one.createdAt)),
      fact("Id", h("span", { class: "mono" }, one.id))),
  ];
}
