// Accounts, and what moved, was asked for, is under way or is not known to have moved between them; from left to right.

import { h } from "./dom.js";

const [GAP_Y, HEIGHT, CHARACTER, LONGEST] = [26, 38, 7.3, 26];

const shortened = (text) => text.length > LONGEST ? `${text.slice(0, 12)}…${text.slice(-12)}` : text;
const labelOf = (edge) => edge.amounts.length > 2 ? `${edge.amounts.length} payments` : edge.amounts.join(", ");
const STATES = { moved: "", asked: " (as asked: its service does not tell what it moved)", repeated: " (perhaps twice: check the ledger)", open: " (under way)", unknown: " (not seen to end: it may have moved)" };

// How far right each account stands: one step further than those that pay it; circles are cut.
function columns(nodes, edges) {
  const column = nodes.map(() => 0);
  for (let round = 0; round < nodes.length; round++) {
    let moved = false;
    for (const { from, to } of edges) {
      if (from !== to && column[to] < column[from] + 1 && column[from] + 1 < nodes.length) {
        column[to] = column[from] + 1;
        moved = true;
      }
    }
    if (!moved) break;
  }
  const used = [...new Set(column)].sort((a, b) => a - b);
  return column.map((one) => used.indexOf(one));
}

export function graph({ nodes, edges }, heading) {
  const column = columns(nodes, edges);
  const ledgers = new Set(nodes.map((node) => node.ledger));
  const names = nodes.map((node) => shortened(node.account));
  const gap = Math.max(110, ...edges.map((edge) => labelOf(edge).length * 6.6 + 40));
  const widths = [];
  column.forEach((at, n) => { widths[at] = Math.max(widths[at] ?? 90, names[n].length * CHARACTER + 24); });
  const lefts = widths.map((_, at) => 8 + widths.slice(0, at).reduce((sum, width) => sum + width + gap, 0));
  const filled = widths.map(() => 0);
  const places = nodes.map((_, n) => ({ x: lefts[column[n]], y: 12 + filled[column[n]]++ * (HEIGHT + GAP_Y), w: widths[column[n]] }));
  const width = Math.max(...places.map((place) => place.x + place.w)) + 8;
  const below = edges.some(({ from, to }) => places[to].x <= places[from].x) ? 40 : 0; // lines back run below the accounts
  const height = Math.max(...places.map((place) => place.y)) + HEIGHT + 12 + below;
  const said = edges.map((edge) => `${edge.amounts.join(", ")} from ${nodes[edge.from].account} to ${nodes[edge.to].account}${STATES[edge.state]}`).join("; ");
  return h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${heading}: ${said}` },
    h("defs", {}, ["moved", "repeated", "asked", "open", "unknown"].map((state) => h("marker", { id: `tip-${state}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", class: `tip ${state}` }, h("path", { d: "M0 0.8 7.5 4 0 7.2z" })))),
    edges.map((edge) => line(edge, places)),
    nodes.map((node, n) => h("g", { class: "account" },
      h("title", {}, `${node.account}, ledger ${node.ledger}`),
      h("rect", { x: places[n].x, y: places[n].y, width: places[n].w, height: HEIGHT, rx: 7 }),
      h("text", { x: places[n].x + 12, y: places[n].y + (ledgers.size > 1 ? 17 : 23) }, names[n]),
      ledgers.size > 1 ? h("text", { x: places[n].x + 12, y: places[n].y + 31, class: "ledger" }, node.ledger) : null)));
}

function line(edge, places) {
  const [a, b] = [places[edge.from], places[edge.to]];
  const forward = b.x > a.x;
  const [x1, y1] = [forward ? a.x + a.w : a.x + a.w / 2, a.y + (forward ? HEIGHT / 2 : HEIGHT)];
  const [x2, y2] = [forward ? b.x - 2 : b.x + b.w / 2, b.y + (forward ? HEIGHT / 2 : HEIGHT + 2)];
  const bend = forward ? (x2 - x1) / 2 : 0;
  const path = forward ? `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` : `M${x1} ${y1}C${x1} ${y1 + 40} ${x2} ${y2 + 40} ${x2} ${y2}`;
  // The label stands near the receiver, where lines to several accounts lie apart.
  const [lx, ly] = forward ? [x2 - 14 - labelOf(edge).length * 3.2, y2 > y1 ? y2 + 15 : y2 - 7] : [(x1 + x2) / 2, Math.max(y1, y2) + 26];
  return h("g", { class: `edge ${edge.state}` },
    h("title", {}, `${edge.amounts.join(", ")}${STATES[edge.state]}`),
    h("path", { d: path, "marker-end": `url(#tip-${edge.state})` }),
    h("text", { x: lx, y: ly, "text-anchor": "middle" }, labelOf(edge)));
}
