// Which view an address shows, who is signed in, and the keys of the keyboard.

import { ask, closeDialog, h, show } from "./dom.js";
import { instance } from "./instance.js";
import { instances } from "./instances.js";
import { dropToken, keepToken, openSession } from "./server.js";
import { trigger, triggers } from "./triggers.js";
import { clock } from "./words.js";
import { workflow, workflows } from "./workflows.js";

const main = document.getElementById("main");
const liveSign = document.getElementById("live");
const stale = document.getElementById("stale");
let shown = new AbortController();

// What the last event of a stream, or the last answer of a list, says of the whole view: is it as the server is now, and
// if not, since when.
let unread = false;

function live(name, data = {}) {
  if (name === "problem" || name === "missing") unread = true;
  else if (name === "instance" || name === "recovered") unread = false;
  const words = { lost: "Lost", refused: "Not connected", over: "Ended" };
  const word = words[name] ?? (unread ? "Not read" : "Live");
  if (liveSign.textContent !== word) liveSign.textContent = word;
  liveSign.className = `live ${word === "Live" ? "on" : word === "Ended" ? "" : "off"}`;
  const said = name !== "lost" ? "" : data.heard
    ? `Nothing has come from the page's server since ${clock(data.heard)}: what is shown is as old as that. Trying again.`
    : "The page's server does not answer. Trying again.";
  stale.hidden = !said;
  if (stale.textContent !== said) stale.textContent = said;
}

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
  unread = false;
  closeDialog(); // what it asks is of the view that goes
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [, room, id] = path.split("/");
  const context = { signal: shown.signal, live, title };
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

async function start() {
  const had = sessionStorage.length > 0;
  try {
    const session = await openSession();
    show(document.getElementById("server"),
      h("span", {}, session.server), session.version ? h("span", { class: "quiet" }, ` ${session.version}`) : null,
      session.actions ? null : h("span", { class: "chip" }, "reads only"),
      session.problem ? h("span", { class: "chip bad", title: session.problem }, "does not answer") : null);
    route(false);
  } catch (error) {
    if (error.status !== 401) return failed(error);
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
  if (location.hash.startsWith("#token=")) { takeToken(); start(); } else route(true);
});
addEventListener("orchestration-token-needed", () => signIn());
takeToken();
start();
