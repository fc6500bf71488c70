// What is wrong, in words: the connection, the database, the capture, or that no trade comes. Each is named within five
// seconds; a symbol that is quiet is not called a stopped capture.

import { priceOf, shown } from "/static/amounts.js";
import { showVerdict } from "/static/completeness.js";
import { $, age, serverNow, state, trouble } from "/static/page.js";

// Without a trade for so long, a capture that is known to have stopped is named.
const STOPPED_MS = 2_000;
// If nothing is known of the capture, it depends on how long the pauses between trades usually are.
const OLD_MS_MIN = 4_000;
const OLD_MS_MAX = 10_000;
const USUAL_PAUSES = 3;
const PAUSES_MAX = 60;

const SHOWN = "Shown is what was last known";
const pauses = [];

/** Takes in the time of the newest trade of all symbols, in milliseconds. */
export function onNewest(time) {
  if (state.newestOfAll !== null && time > state.newestOfAll) {
    pauses.push(time - state.newestOfAll);
    if (pauses.length > PAUSES_MAX) pauses.shift();
  }
  state.newestOfAll = Math.max(time, state.newestOfAll ?? 0);
}

/** What is wrong, as a short name and in words; null: nothing. */
function problem() {
  if (trouble.connection) return ["api", `No connection to the API (${trouble.connection}). ${SHOWN}; trying again.`];
  if (trouble.waiting) return ["waiting", "The API or its database has not answered yet. This page starts as soon as it does."];
  if (trouble.database === "away") {
    return ["database-away", `The database is away. ${SHOWN}; this page goes on as soon as it is back.`];
  }
  if (trouble.database) {
    return ["database-silent", `The database does not answer: it is frozen or very busy. ${SHOWN}; this page goes on as soon as it answers.`];
  }
  const newest = Math.max(state.newestOfAll ?? 0, ...state.newest.values());
  return newest ? quiet(serverNow() - newest) : null;
}

/** The same for the milliseconds since the newest trade. */
function quiet(old) {
  const none = `No new trade for ${age(old)}`;
  if (trouble.capture === "stopped") return old > STOPPED_MS ? ["capture-stopped", `${none}: the capture has stopped.`] : null;
  if (trouble.capture === "frozen") {
    return old > STOPPED_MS ? ["capture-frozen", `${none}: the capture is suspended. It goes on when its process does.`] : null;
  }
  if (trouble.capture === "running") {
    return old > OLD_MS_MAX ? ["quiet", `${none}. The capture is running: the market may be quiet, or the exchange cannot be reached.`] : null;
  }
  const usual = USUAL_PAUSES * Math.max(0, ...pauses);
  return old > Math.min(OLD_MS_MAX, Math.max(OLD_MS_MIN, usual)) ? ["no-trades", `${none}. Is the capture running?`] : null;
}

const withoutAge = (words) => (words ?? "").replace(/for [\d.]+ \w+/, "");

/** Shows it, in the banner, the light and the title. The banner's data-kind says what it is, data-since when it was first
 * said. */
export function showTrouble() {
  const [kind, words] = (trouble.started && problem()) || [null, null];
  const banner = $("banner");
  if (kind !== trouble.kind) {
    trouble.kind = kind;
    Object.assign(banner.dataset, { kind: kind ?? "", since: new Date().toISOString() });
  }
  if (trouble.started) showVerdict();
  // A screen reader says it again whenever the text changes, so the seconds that pass are left to the eye.
  if (withoutAge(words) !== withoutAge(banner.textContent)) banner.textContent = words ?? "";
  else if (words && banner.firstChild) banner.firstChild.data = words;
  banner.hidden = words === null;
  const live = trouble.started && words === null;
  $("connection").dataset.state = live ? "live" : trouble.started ? "away" : "waiting";
  $("connection-text").textContent = live ? "live" : trouble.started ? "not live" : "connecting";
  document.title = words ? "⚠ Trades" : state.symbol ? `${price(state.symbol)} ${state.symbol}` : "Trades";
}

const price = (symbol) => shown(state.cards.get(symbol).price.dataset.amount ?? "", priceOf(symbol));
