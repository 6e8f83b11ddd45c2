// Which view an address shows, who is signed in, and the keys of the keyboard.

import { ask, closeDialog, h, show } from "./dom.js";
import { instance } from "./instance.js";
import { instances } from "./instances.js";
import { dropToken, keepToken, liveFor, openSession } from "./server.js";
import { trigger, triggers } from "./triggers.js";
import { clock, keepCounting } from "./words.js";
import { workflow, workflows } from "./workflows.js";

const main = document.getElementById("main");
const liveSign = document.getElementById("live");
const stale = document.getElementById("stale");
let shown = new AbortController();

// The sign in the corner says how old the whole view is. It knows that from what the page's server tells with each
// answer and event: how many seconds ago the reading of the oldest part began (`age`). Nothing else makes it say "Live":
// neither a stream that speaks nor an answer that comes.
let said = ""; // the last word of the stream itself: lost, refused, over
let unread = false; // the last reading failed, or was denied
let heard = null;
let oldest = null; // the oldest part: when its reading began, by this tab's clocks (`began`), and as text (`at`)

function live(name, data = {}) {
  said = ["lost", "refused", "over"].includes(name) ? name : "";
  if (name === "lost") heard = data.heard;
  if (name === "problem" || name === "missing") unread = true;
  else if (name === "instance" || name === "recovered") unread = false;
  if (typeof data.age === "number") oldest = { began: now().map((one) => one - data.age * 1000), at: clock(data.readAt * 1000), under: typeof data.readingFor === "number" };
  showAge();
}

// Two clocks: one stands while a machine sleeps, the other can be set back.
const now = () => [performance.now(), Date.now()];
const isOld = () => oldest !== null && now().some((one, n) => one - oldest.began[n] > liveFor() * 1000);

function showAge() {
  const ended = said === "over" && !unread;
  const word = said === "lost" ? "Lost" : said === "refused" ? "Not connected" : ended ? "Ended" : unread ? "Not read"
    : oldest === null ? "Reading…" : isOld() ? `As of ${oldest.at}` : "Live";
  if (liveSign.textContent !== word) liveSign.textContent = word;
  keepCounting(word === "Live");
  liveSign.className = `live ${word === "Live" ? "on" : ended ? "" : "off"}`;
  const read = oldest ? ` What is shown was read at ${oldest.at}.` : "";
  const text = said === "lost" ? (heard ? `Nothing has come from the page's server since ${clock(heard)}.${read} Trying again.` : `The page's server does not answer.${read} Trying again.`)
    : !said && !unread && isOld() ? `What is shown was read at ${oldest.at}, and nothing newer since${oldest.under ? ": a reading is under way, and takes long" : ""}.` : "";
  stale.hidden = !text;
  if (stale.textContent !== text) stale.textContent = text;
}

let following = false; // whether a view is shown that has an age
setInterval(() => { if (following) showAge(); }, 1000);

const title = (text) => { document.title = `${text} · Orchestration`; };

// A part of an address, as it was before it was encoded; as it stands where it is not encoded rightly.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// An address may bring the token along: it is kept, and taken out of the address.
function takeToken() {
  const match = /^#token=([^&]*)(?:&(.*))?$/.exec(location.hash);
  if (match) {
    keepToken(decoded(match[1]));
    history.replaceState(null, "", match[2] ? `#${match[2]}` : "#/instances");
  }
}

function route(focus) {
  shown.abort();
  shown = new AbortController();
  stale.hidden = true;
  [said, unread, heard, oldest, following] = ["", false, null, null, false];
  closeDialog(); // what it asks is of the view that goes
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [, room, id] = path.split("/");
  const mine = shown.signal;
  const context = { signal: mine, title, live: (name, data) => { if (!mine.aborted) { following = true; live(name, data); } } };
  liveSign.textContent = "";
  liveSign.className = "live";
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === (room || "instances")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  let view;
  try {
    if (room === "instances" && id) view = instance(main, decoded(id), context);
    else if (room === "workflows" && id) view = workflow(main, decoded(id), context);
    else if (room === "workflows") view = workflows(main, new URLSearchParams(query), context);
    else if (room === "triggers" && id) view = trigger(main, decoded(id), new URLSearchParams(query), context);
    else if (room === "triggers") view = triggers(main, new URLSearchParams(query), context);
    else if (room === "task") location.replace(`#/instances?${new URLSearchParams({ key: runKey(path.split("/").slice(2)), open: "1" })}`);
    else if (room === "" || room === undefined || room === "instances") view = instances(main, new URLSearchParams(query), context);
    else show(main, h("h1", {}, "Not found"), h("p", {}, "There is no such page."), h("p", {}, h("a", { href: "#/instances" }, "Show the instances")));
  } catch (error) {
    view = Promise.reject(error);
  }
  Promise.resolve(view).catch(failed);
  if (focus) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

// The run key that a scheduler's task has by default: its names, encoded as structured_key does in Python. Airflow fills
// in the index of a mapped task only, and leaves its placeholder for any other, whose index is -1.
function runKey(names) {
  const parts = names.map((name) => (decoded(name) === "{MAP_INDEX}" ? "-1" : name));
  const kept = { "%20": " ", "%3A": ":", "%2B": "+", "%40": "@", "%3D": "=", "%2C": "," };
  return parts.map((part) => encodeURIComponent(decoded(part))
    .replace(/%(20|3A|2B|40|3D|2C)/g, (code) => kept[code])
    .replace(/[!*'()~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)).join("/");
}

function failed(error) {
  if (error.name === "AbortError" || error.status === 401) return; // for a 401 the token is asked for already
  show(main, h("h1", {}, error.status === 404 ? "Not found" : "That did not work"), h("p", { class: "message bad", role: "alert" }, error.message));
}

function signIn(wrong = "") {
  shown.abort();
  title("Token needed");
  const input = h("input", { id: "token", type: "password", required: true, autocomplete: "current-password" });
  show(main, h("form", {
    class: "panel signin",
    onsubmit: async (event) => {
      event.preventDefault();
      keepToken(input.value.trim());
      start();
    },
  }, h("h1", {}, "Token needed"), h("p", {}, "This page demands the token that its server was started with."),
    h("div", { class: "field" }, h("label", { for: "token" }, "Token"), input),
    wrong ? h("p", { class: "message bad", role: "alert" }, wrong) : null,
    h("p", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Open"))));
  input.focus();
}

// What the header says of the server is read again too, sooner where the server did not answer.
const SESSION_AGAIN = [30_000, 5_000]; // milliseconds
const START_AGAIN = 3_000;
let opened = false;
let nextSession;

async function readSession() {
  const asked = Date.now();
  const session = await openSession();
  opened = true;
  show(document.getElementById("server"),
    h("span", {}, session.server), session.version ? h("span", { class: "quiet" }, ` ${session.version}`) : null,
    session.actions ? null : h("span", { class: "chip" }, "reads only"),
    session.problem ? h("span", { class: "chip bad", title: session.problem }, `did not answer at ${clock(asked)}`) : null);
  readSessionIn(SESSION_AGAIN[session.problem ? 1 : 0]);
}

function readSessionIn(milliseconds) {
  clearTimeout(nextSession);
  nextSession = setTimeout(() => readSession().catch(() => readSessionIn(SESSION_AGAIN[1])), milliseconds);
}

let nextStart;
async function start() {
  const had = sessionStorage.length > 0;
  clearTimeout(nextStart);
  try {
    await readSession();
    route(false);
  } catch (error) {
    if (error.status !== 401) {
      failed(error);
      nextStart = setTimeout(start, START_AGAIN); // until it is told otherwise, this is how things stand
      return;
    }
    closeDialog();
    dropToken();
    signIn(had ? "This is not the token." : "");
  }
}

const KEYS = [["/", "Search"], ["i", "Instances"], ["w", "Workflows"], ["t", "Triggers"], ["j, k", "Next and previous row"], ["?", "This help"]];

function step(by) {
  const rows = [...document.querySelectorAll("a.row")];
  const at = rows.indexOf(document.activeElement);
  rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key === "Escape" && event.target.id === "search") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const pressed = {
    "/": () => document.getElementById("search")?.focus(),
    i: () => { location.hash = "#/instances"; },
    w: () => { location.hash = "#/workflows"; },
    t: () => { location.hash = "#/triggers"; },
    j: () => step(1),
    k: () => step(-1),
    "?": () => ask("Keys", h("dl", { class: "keys" }, KEYS.map(([key, word]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, word))))),
  }[event.key];
  if (pressed) { event.preventDefault(); pressed(); }
});

document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) { takeToken(); start(); } else if (opened) route(true); else start();
});
addEventListener("orchestration-token-needed", () => signIn());
takeToken();
start();
