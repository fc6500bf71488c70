// The tape: the last trades of the symbol that is shown. Rows are kept and moved, so that a tick costs only its new trades.
// It stands still while the pointer or the focus is in it. A trade that is large beside the others is marked.

import { exact, priceOf, quantityOf, units } from "/static/amounts.js";
import { clock } from "/static/forms.js";
import { $, cells, state } from "/static/page.js";

const ROWS = 24;
// Large: among the largest 5 in 100 of so many trades, and twice the usual one. Of fewer it cannot be said.
const VALUES_MAX = 200;
const VALUES_MIN = 20;

const rows = new Map();
// Price times quantity of the last trades of each symbol that has a card, as whole numbers of 10^-16.
const values = new Map();
const still = { pointer: false, focus: false, missed: 0 };

const value = (one) => units(one.price) * units(one.quantity);

/** Takes in the trades of a tick, which are given newest first, and shows them if they are of the symbol that is shown. */
export function onTape({ symbol, tape, count }) {
  const known = state.tapes.get(symbol) ?? [];
  const newest = known[0]?.trade_id ?? 0;
  const fresh = tape.filter((one) => one.trade_id > newest);
  state.tapes.set(symbol, [...fresh, ...known].slice(0, ROWS));
  values.set(symbol, [...fresh.map(value), ...(values.get(symbol) ?? [])].slice(0, VALUES_MAX));
  for (const gone of [...values.keys()].filter((one) => !state.tapes.has(one))) values.delete(gone);
  if (symbol !== state.symbol) return;
  still.missed += count;
  if (still.pointer || still.focus) showStill();
  else drawTape();
}

/** Draws what `state.tapes` has of the symbol that is shown. */
export function drawTape() {
  still.missed = 0;
  showStill();
  const trades = state.tapes.get(state.symbol) ?? [];
  $("tape").closest("section").ariaBusy = String(!trades.length);
  const wanted = new Set(trades.map((one) => `${one.symbol} ${one.trade_id}`));
  for (const [key, row] of rows) {
    if (!wanted.has(key)) {
      row.remove();
      rows.delete(key);
    }
  }
  const body = $("tape").tBodies[0];
  const from = largeFrom(values.get(state.symbol) ?? []);
  for (const one of [...trades].reverse()) {
    const key = `${one.symbol} ${one.trade_id}`;
    if (rows.has(key)) continue;
    const row = makeRow(one, from !== null && value(one) >= from);
    rows.set(key, row);
    body.prepend(row);
  }
}

/** From what value on a trade is large; null: it is too early to say. */
function largeFrom(list) {
  if (list.length < VALUES_MIN) return null;
  const sorted = list.toSorted((one, other) => (one < other ? -1 : one > other ? 1 : 0));
  const [usual, high] = [0.5, 0.95].map((part) => sorted[Math.floor(part * (sorted.length - 1))]);
  return high > 2n * usual ? high : 2n * usual;
}

function makeRow(one, large) {
  const side = document.createElement("span");
  side.className = one.buyer_is_maker ? "down" : "up";
  side.textContent = one.buyer_is_maker ? "sold" : "bought";
  const quantity = exact(one.quantity, "", quantityOf(one.symbol));
  const row = cells([clock(one.timestamp), exact(one.price, "", priceOf(one.symbol)), quantity, side]);
  row.title = `trade ${one.trade_id}${large ? ", large: among the largest 5 in 100 of the last trades" : ""}`;
  if (large) {
    row.className = "large";
    quantity.before(
      Object.assign(document.createElement("span"), { className: "mark", ariaHidden: "true", textContent: "◆" }),
      Object.assign(document.createElement("span"), { className: "unseen", textContent: "large: " }),
    );
  }
  return row;
}

function showStill() {
  const paused = still.pointer || still.focus;
  $("tape-still").textContent = paused ? `paused: ${still.missed.toLocaleString("en")} new` : "";
  $("tape").dataset.paused = String(paused);
}

function setStill(part, on) {
  still[part] = on;
  if (still.pointer || still.focus) showStill();
  else drawTape();
}

/** Lets the tape stand still while the pointer or the focus is in it. */
export function connectTape() {
  const place = $("tape").parentElement;
  // A finger that scrolls by is no pointer that rests.
  place.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && setStill("pointer", true));
  place.addEventListener("pointerleave", () => setStill("pointer", false));
  place.addEventListener("focusin", () => setStill("focus", true));
  place.addEventListener("focusout", () => setStill("focus", false));
}
