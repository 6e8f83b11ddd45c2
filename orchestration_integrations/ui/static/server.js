// Requests to the page's own server. The token is kept for this tab only, and no cookie holds it.

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
  throw new Refused(response.status, body);
}

export async function get(path, signal) {
  return (await answered(path, { headers: headers(), signal })).json();
}

export async function openSession() {
  session = await get("session");
  return session;
}

export const actsAllowed = () => Boolean(session?.actions);

export async function act(path, body = {}) {
  const send = () => answered(path, {
    method: "POST",
    headers: headers({ "content-type": "application/json", "x-page-action": session?.actionToken ?? "" }),
    body: JSON.stringify(body),
  });
  return (await send()).json();
}

// Server-sent events, read by fetch since EventSource can carry no token. Connects anew until the signal aborts.
export async function follow(path, signal, on) {
  let pause = 500;
  while (!signal.aborted) {
    try {
      const response = await answered(path, { headers: headers(), signal });
      pause = 500;
      on("connected", {});
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const name = /^event: (.*)$/m.exec(part)?.[1];
          const data = /^data: (.*)$/m.exec(part)?.[1];
          if (name === "over") { on(name, {}); return; }
          if (name) on(name, JSON.parse(data ?? "{}"));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403 || error.status === 404) { on("refused", error); return; }
    }
    if (signal.aborted) return;
    on("lost", {});
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 5000);
  }
}

