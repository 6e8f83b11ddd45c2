// Times and states in words. Instants are the server's, and so is the present that they are compared with: `skew` is how far
// its clock is ahead of this browser's. Whatever the page's server sends tells it anew (server.js), since it can move.

import { h } from "./dom.js";

let skew = 0;

export function noteServerTime(epochSeconds) {
  if (epochSeconds) skew = epochSeconds * 1000 - Date.now();
}

const serverNow = () => Date.now() + skew;
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const clock = (epochMilliseconds) => CLOCK.format(new Date(epochMilliseconds));
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s > 0 && s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s < 10 && !Number.isInteger(s) ? s.toFixed(1) : Math.round(s)} s`;
  const [d, hr, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return hr ? `${d} d ${hr} h` : `${d} d`;
  if (hr) return m ? `${hr} h ${m} min` : `${hr} h`;
  return Math.round(s) % 60 ? `${m} min ${Math.round(s) % 60} s` : `${m} min`;
}

export function between(start, end) {
  return start && end ? duration((Date.parse(end) - Date.parse(start)) / 1000) : "";
}

const today = () => new Date(serverNow()).toDateString();
const dayOrTime = (at) => at.toDateString() === today() ? CLOCK.format(at) : FULL.format(at);

// A time of day where it is today's, else a date; the whole instant on hover.
export function time(instant) {
  if (!instant) return "–";
  const at = new Date(instant);
  if (Number.isNaN(at.getTime())) return instant; // beyond what a browser can count
  return h("time", { datetime: instant, title: FULL.format(at) }, dayOrTime(at));
}

function since(instant) {
  return duration(Math.max(0, Math.floor((serverNow() - Date.parse(instant)) / 1000)));
}

// What was due while nothing was read any more is not said to happen now.
function left(instant) {
  const seconds = Math.ceil((Date.parse(instant) - serverNow()) / 1000);
  if (Number.isNaN(seconds)) return `at ${instant}`; // beyond what a browser can count
  return seconds > 0 ? `in ${duration(seconds)}` : lasting ? "now" : `at ${dayOrTime(new Date(instant))}`;
}

// Texts that count by themselves. They are no live regions: a screen reader would read each second.
export const counting = (instant) => h("span", { "data-since": instant }, since(instant));
export const countdown = (instant) => h("span", { "data-until": instant }, left(instant));

// A time that something has lasted is known as long as it is read: over a view that is old it stands still.
let lasting = true;
export const keepCounting = (on) => { lasting = on; };

let day = today();
setInterval(() => {
  if (day !== today()) {
    day = today();
    for (const one of document.querySelectorAll("time")) one.textContent = dayOrTime(new Date(one.dateTime));
  }
  if (lasting) for (const one of document.querySelectorAll("[data-since]")) one.textContent = since(one.dataset.since);
  for (const one of document.querySelectorAll("[data-until]")) one.textContent = left(one.dataset.until);
}, 1000);

const WORDS = {
  running: ["busy", "Running"], succeeded: ["good", "Succeeded"], failed: ["bad", "Failed"], cancelled: ["off", "Cancelled"],
  failing: ["bad", "Failing"], listening: ["wait", "Waits for an event"], gate: ["wait", "At its gate"],
  checkpoint: ["wait", "At a checkpoint"], waiting: ["idle", "Delay"], done: ["good", "Done"],
  unsure: ["wait", "Not sure"], todo: ["idle", "Not begun"], skipped: ["off", "Never begun"],
};

export function badge(state) {
  const [tone, word] = WORDS[state] ?? ["idle", state];
  return h("span", { class: `badge ${tone}` }, h("span", { class: "dot", "aria-hidden": "true" }), word);
}

export const toneOf = (state) => (WORDS[state] ?? ["idle"])[0];
export const shortId = (id) => (id.length > 18 ? id.slice(0, 8) : id);
// What of an answer is drawn, as a text: all but how old it is, which the sign in the corner tells. Where the last reading
// failed, the view itself says of when it is.
export const drawnOf = (found, more) => JSON.stringify({ ...found, readAt: found.problem || found.missing ? found.readAt : null,
  age: null, readingFor: null, allReadAt: null, allAge: null, now: null, more });
// What is said over a list whose last reading failed; empty where it did not. `what` stands for the list.
export const unreadText = ({ problem, readAt }, what = "The list") => !problem ? ""
  : `${what} could not be read: ${problem}${readAt ? `. What is shown was read at ${clock(readAt * 1000)}.` : ""}`;
// What stands where rows would: nothing is said to be there only where a reading has succeeded.
// A list that has none says no more than that: not in the list is not "there is none".
export const emptyText = ({ readAt, problem, total }, nothing) => readAt ? (total ? "There is no such page of the list." : nothing)
  : problem ? "Whether there are any is not known: the list was never read." : "Reading the list…";
export const known = (n) => (n === null || n === undefined ? "–" : n.toLocaleString());
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString()} ${n === 1 ? one : many}`;
