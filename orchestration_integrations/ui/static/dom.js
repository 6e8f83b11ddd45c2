// Elements from plain values. Whatever comes from a server becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "circle", "text", "title", "defs", "marker", "tspan"]);

export function h(tag, props = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Replaces what stands in a place, and leaves the focus where it was: elements are known by their data-key.
export function show(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...children.flat(3).filter(Boolean));
  if (focused !== undefined) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

export const closeDialog = () => {
  const dialog = document.getElementById("dialog");
  if (dialog.open) { dialog.close(); dialog.oncancel?.(); }
};

export function ask(title, text, action) {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const close = (answer) => () => { dialog.close(); resolve(answer); };
    dialog.oncancel = () => resolve(false);
    dialog.replaceChildren(
      h("h2", { id: "dialog-title" }, title),
      typeof text === "string" ? h("p", {}, text) : text,
      h("p", { class: "buttons" },
        action ? h("button", { type: "button", class: "danger", onclick: close(true) }, action) : null,
        h("button", { type: "button", onclick: close(false), autofocus: true }, action ? "Leave it" : "Close")),
    );
    dialog.showModal();
  });
}
