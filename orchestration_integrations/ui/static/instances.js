// The list of instances, by state, workflow, and a text in id, run key or workflow.

import { h, show } from "./dom.js";
import { follow, get, liveFor } from "./server.js";
import { badge, between, clock, count, counting, drawnOf, emptyText, known, shortId, time, unreadText } from "./words.js";

const STATES = [["", "All"], ["running", "Running"], ["succeeded", "Succeeded"], ["failed", "Failed"], ["cancelled", "Cancelled"]];

export const address = (wanted) => {
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value && value !== "0"));
  return `#/instances${query.size ? `?${query}` : ""}`;
};

export function instances(place, query, { signal, live, title }) {
  const wanted = { state: query.get("state") ?? "", workflow: query.get("workflow") ?? "", q: query.get("q") ?? "", key: query.get("key") ?? "", page: query.get("page") ?? "0" };
  title("Instances");
  const tabs = h("nav", { class: "tabs", "aria-label": "By state" });
  const list = h("div", { class: "list" }, h("p", { class: "quiet" }, "Reading the list…"));
  const note = h("p", { class: "quiet", role: "status" });
  const whole = h("p", { class: "quiet whole", hidden: true });
  const search = h("input", {
    type: "search", id: "search", value: wanted.q, autocomplete: "off", spellcheck: "false",
    placeholder: "Instance id, run key or workflow", "aria-label": "Search instances", "aria-keyshortcuts": "/",
  });
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      wanted.q = search.value.trim();
      wanted.page = "0";
      history.replaceState(null, "", address(wanted));
      refresh();
    }, 200);
  });
  show(place,
    h("div", { class: "head" }, h("h1", {}, "Instances"), h("search", {}, search)),
    tabs, note, whole, list);

  // What runs is read more often than the whole list. A run that began and ended in between is in neither.
  function tellWhole({ allAge, allReadAt }) {
    const text = !unread && allAge > liveFor() ? `The whole list was read at ${clock(allReadAt * 1000)}: runs that began and ended since then may be missing.` : "";
    whole.hidden = !text;
    if (whole.textContent !== text) whole.textContent = text;
  }

  let unread = false; // then all of it is as old as the page says
  let asking = null;
  async function refresh() {
    asking?.abort();
    asking = new AbortController();
    const mine = AbortSignal.any([signal, asking.signal]);
    drawnNow = false;
    try {
      const found = await get(`instances?${new URLSearchParams(wanted)}`, mine);
      draw(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      drawn = ""; // what was drawn is gone: the next reading is drawn, also where it is the same
      live("problem");
      show(list, h("p", { class: "message bad", role: "alert" }, error.message));
    }
  }

  let drawn = "";
  let drawnNow = false; // what is drawn is all that the page's server knows
  let byId = false; // a row was read by its id, since no list has it
  function draw(found) {
    [drawnNow, byId, unread] = [true, Boolean(found.byId), Boolean(found.problem)];
    live(found.problem ? "problem" : "recovered", found);
    tellWhole(found);
    const now = drawnOf(found, wanted);
    if (now === drawn) return; // what has not changed stays, under the pointer too
    drawn = now;
    const counts = Object.values(found.counts);
    const all = counts.includes(null) ? null : counts.reduce((sum, n) => sum + n, 0);
    show(tabs,
      STATES.map(([state, word]) => h("a", {
        href: address({ ...wanted, state, page: "0" }), "data-key": `tab-${state}`, "aria-current": state === wanted.state ? "page" : null,
      }, word, " ", h("span", { class: "n" }, known(state ? found.counts[state] : all)))),
      wanted.workflow ? h("a", { class: "chip", href: address({ ...wanted, workflow: "", page: "0" }), "data-key": "chip" },
        "Workflow ", found.rows[0]?.workflow.name || shortId(wanted.workflow), " ✕", h("span", { class: "hidden" }, " (show all workflows)")) : null,
      wanted.key ? h("a", { class: "chip", href: address({ ...wanted, key: "", page: "0" }), "data-key": "key-chip" },
        "Run key ", h("span", { class: "mono" }, wanted.key), " ✕", h("span", { class: "hidden" }, " (show all run keys)")) : null);
    note.textContent = unreadText(found) || (found.keysToRead ? `Reading run keys: ${count(found.keysToRead, "run")} to go`
        : found.keysUnread ? `The run keys of ${count(found.keysUnread, "run")} were not read (the oldest of a long list, or their history cannot be read): some of them may match too.` : "");
    note.className = found.problem ? "message bad" : "quiet";
    if (query.get("open") && found.rows.length === 1 && !found.keysToRead && wanted.key) {
      location.replace(`#/instances/${encodeURIComponent(found.rows[0].id)}`);
      return;
    }
    if (!found.rows.length) {
      const narrowed = wanted.q || wanted.key || wanted.state || wanted.workflow;
      show(list, h("div", { class: "quiet empty" },
        h("p", {}, emptyText(found, found.keysToRead || found.keysUnread ? "No instance matches among those whose run key was read."
          : narrowed ? "No instance matches." : "No instance is in the list.")),
        found.readAt ? h("p", { class: "hint" }, "Those of deleted workflows stand in no list; the search finds one by its whole id.") : null));
      return;
    }
    show(list,
      h("table", { class: "rows" },
        h("caption", { class: "hidden" }, "Instances, the newest first"),
        h("thead", {}, h("tr", {}, ["State", "Instance", "Workflow", "Run key", "Stands at", "Created", "Took"].map((word) => h("th", { scope: "col", class: word === "Took" && "num" }, word)))),
        h("tbody", {}, found.rows.map(row))),
      pager(found));
  }

  function row(one) {
    const name = one.workflow.name || shortId(one.workflow.id);
    return h("tr", {},
      h("td", { "data-label": "State" }, badge(one.kind)),
      h("td", { "data-label": "Instance" }, h("a", { class: "mono row", href: `#/instances/${encodeURIComponent(one.id)}`, title: one.id, "data-key": one.id, "aria-label": `Instance ${one.id}` }, shortId(one.id))),
      h("td", { "data-label": "Workflow" }, h("a", { href: `#/workflows/${encodeURIComponent(one.workflow.id)}`, "data-key": `w-${one.id}` }, name)),
      h("td", { "data-label": "Run key", class: `mono key${one.runKey === null ? " none" : ""}`, title: one.runKey }, one.runKey ?? (one.keyUnread ? "…" : "–")),
      h("td", { "data-label": "Stands at", class: one.note ? "note" : "none", title: one.note || (one.noteUnread ? "Not read" : null) }, one.noteAsOf ? `${one.note} (read at ${clock(one.noteAsOf * 1000)})` : one.note || (one.noteUnread ? "…" : "–")),
      h("td", { "data-label": "Created" }, time(one.createdAt)),
      h("td", { "data-label": "Took", class: "num" }, one.endedAt ? between(one.createdAt, one.endedAt) : one.createdAt ? counting(one.createdAt) : "–"));
  }

  function pager(found) {
    if (found.total === null) return null; // found by its id; the list itself was never read
    const page = found.page;
    const to = (n, word, key) => n < 0 || n >= found.pages ? h("span", { class: "quiet" }, word)
      : h("a", { href: address({ ...wanted, page: String(n) }), "data-key": key, rel: key }, word);
    return h("nav", { class: "pager", "aria-label": "Pages" },
      h("span", { class: "quiet" }, `${count(found.total, "instance")}, page ${page + 1} of ${found.pages}`),
      to(page - 1, "← Newer", "prev"), to(page + 1, "Older →", "next"));
  }

  refresh();
  const again = setInterval(refresh, 10_000); // what rows stand at is read for those who look
  signal.addEventListener("abort", () => clearInterval(again));
  follow("live", signal, (name, data) => {
    const same = name === "still" && drawnNow && !byId; // then what is drawn is as new as the list is now
    live(name, name === "lost" ? data : same ? data.instances : {});
    if (same) tellWhole(data.instances);
    if (name === "changed" || name === "connected" || (name === "still" && byId)) refresh();
  });
}
