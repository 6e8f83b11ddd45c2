// Requests to the page's own server. The token is kept for this tab only, and no cookie holds it.

import { noteServerTime } from "./words.js";

const API = "_ui/api/";
const KEPT = "orchestration-token";

let session = null;

export class Refused extends Error {
  constructor(status, body) {
    super(body.message ?? `the page's server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

// Every view asks for the token in one way: whoever answers 401 has it asked for. The session's opener asks by itself.
const askForToken = () => dispatchEvent(new Event("orchestration-token-needed"));

export const keepToken = (token) => sessionStorage.setItem(KEPT, token);
export const dropToken = () => sessionStorage.removeItem(KEPT);

function headers(more = {}) {
  const token = sessionStorage.getItem(KEPT);
  return token ? { authorization: `Bearer ${token}`, ...more } : more;
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(API + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The page's own server does not answer. Is it still running?" });
  }
  if (response.ok) return response;
  let body = {};
  try { body = await response.json(); } catch { /* an answer without a body */ }
  if (response.status === 401 && path !== "session") askForToken();
  throw new Refused(response.status, body);
}

export async function get(path, signal) {
  const found = await (await answered(path, { headers: headers(), signal })).json();
  noteServerTime(found.now);
  return found;
}

export async function openSession() {
  session = await get("session");
  return session;
}

// Seconds for which what was read counts as live.
export const liveFor = () => session.liveFor;

export const actsAllowed = () => Boolean(session?.actions);

const LONGEST_ACTION = 120_000; // milliseconds; the page's server gives each up earlier

// An action is sent once. Without an answer of the page's server nobody knows whether it was done: `lost` says what may
// have happened and what is safe to do next.
export async function act(path, body, lost) {
  try {
    return await (await answered(path, {
      method: "POST",
      headers: headers({ "content-type": "application/json", "x-page-action": session?.actionToken ?? "" }),
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(LONGEST_ACTION),
    })).json();
  } catch (error) {
    if (error.body?.error) throw error; // the page's server itself says what came of it
    throw new Refused(error.status ?? 0, { message: `The answer was lost. ${lost}` });
  }
}

const PERIODS = 2.5; // without a sign of life for so many of the server's periods, it is lost

// Server-sent events, read by fetch since EventSource can carry no token. Connects anew until the signal aborts. A
// connection can stay open over a server that is dead, so silence counts as its end. "lost" tells since when nothing came;
// "refused" tells why it was not let in, and only a demand for the token, which is asked for, ends it.
export async function follow(path, signal, on) {
  let pause = 500;
  let period = 10;
  let heard = null;
  while (!signal.aborted) {
    const silent = new AbortController();
    let timer;
    let refused = null;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), period * PERIODS * 1000);
    };
    alive();
    try {
      const response = await answered(path, { headers: headers(), signal: AbortSignal.any([signal, silent.signal]) });
      period = Number(response.headers.get("x-heartbeat")) || period;
      pause = 500;
      on("connected", {});
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        alive();
        const { value, done } = await reader.read();
        if (done) break;
        heard = Date.now();
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const name = /^event: (.*)$/m.exec(part)?.[1];
          const data = /^data: (.*)$/m.exec(part)?.[1];
          if (name === "over") { on(name, {}); return; }
          const told = JSON.parse(data ?? "{}");
          noteServerTime(told.now);
          if (name) on(name, told);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) refused = error;
    } finally {
      clearTimeout(timer);
    }
    if (signal.aborted) return;
    if (refused) on("refused", refused);
    else on("lost", { heard });
    if (refused?.status === 401) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 5000);
  }
}

