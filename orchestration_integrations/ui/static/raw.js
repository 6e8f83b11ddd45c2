// The server's own text of something, read while somebody has it open: no number of it passes through a program.

import { h } from "./dom.js";
import { get } from "./server.js";
import { clock } from "./words.js";

const textOf = ({ parts, problems }) => [...parts.map(({ call, text }) => `${call}\n${text}`), ...problems].join("\n\n");

export function rawBox(path, summary, signal) {
  const text = h("pre", { tabindex: "0" }, "Reading…");
  const age = h("p", { class: "hint" });
  const element = h("details", { class: "raw", ontoggle: () => refresh() }, h("summary", {}, summary), age, text);

  async function refresh() {
    if (!element.open) return;
    const asked = Date.now();
    try {
      text.textContent = textOf(await get(path, signal));
      age.textContent = `Read at ${clock(asked)}.`;
    } catch (error) {
      if (error.name === "AbortError") return;
      text.textContent = error.message;
      age.textContent = `Could not be read at ${clock(asked)}.`;
    }
  }

  return { element, refresh };
}
