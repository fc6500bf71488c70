// The cards of the symbols: price, speed, lag and changes; and which symbols have one.

import { change, exact, fill, priceOf, quantityOf, unit, unitElement } from "/static/amounts.js";
import { clock } from "/static/forms.js";
import { $, state } from "/static/page.js";
import { Sparkline } from "/static/sparkline.js";

// Up to so many symbols all have a card; of more, those that were looked at last, and a search box finds the others.
export const FEW = 8;
const CARDS_MAX = 4;

function makeCard(symbol, choose) {
  const root = document.createElement("label");
  root.className = "card";
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "symbol", value: symbol });
  input.addEventListener("change", () => choose(symbol));
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: symbol });
  const speed = Object.assign(document.createElement("span"), { className: "speed" });
  const price = Object.assign(document.createElement("span"), { className: "price amount", textContent: "…" });
  const arrow = Object.assign(document.createElement("span"), { className: "arrow", ariaHidden: "true" });
  const line = Object.assign(document.createElement("span"), { className: "price-line" });
  line.append(price, unitElement(priceOf(symbol)), arrow);
  const changes = Object.assign(document.createElement("span"), { className: "changes" });
  const steps = Object.fromEntries(["1m", "1h", "24h"].map((step) => {
    const value = Object.assign(document.createElement("b"), { textContent: "–" });
    const part = document.createElement("span");
    part.append(`${step} `, value);
    changes.append(part);
    return [step, value];
  }));
  const day = Object.assign(document.createElement("span"), { className: "day-facts" });
  const [rate, lag] = [new Sparkline("Trades per second", "/s"), new Sparkline("Lag", "ms")];
  const sparks = Object.assign(document.createElement("span"), { className: "sparks" });
  for (const [title, spark] of [["trades/s", rate], ["lag", lag]]) {
    const part = Object.assign(document.createElement("span"), { title: `${title}, the last minute` });
    part.append(spark.root, Object.assign(document.createElement("span"), { ariaHidden: "true", textContent: title }));
    sparks.append(part);
  }
  const head = Object.assign(document.createElement("span"), { className: "card-head" });
  head.append(name, speed);
  line.append(sparks);
  root.append(input, head, line, changes, day);
  showDay({ day }, null, symbol);
  return { root, input, price, arrow, speed, steps, day, rate, lag, before: {} };
}

/** Makes a card for each of `symbols` that has none, in place of those that were looked at longest ago. Returns whether
 * any was made. */
export function showCards(symbols, choose) {
  const added = symbols.filter((symbol) => !state.cards.has(symbol));
  for (const symbol of added) {
    const card = makeCard(symbol, choose);
    state.cards.set(symbol, card);
    $("symbols").append(card.root);
  }
  const most = state.all.length > FEW ? CARDS_MAX : FEW;
  for (const symbol of most === CARDS_MAX ? symbols : []) {
    const card = state.cards.get(symbol);
    state.cards.delete(symbol);
    state.cards.set(symbol, card);
  }
  const old = [...state.cards.keys()].filter((symbol) => symbol !== state.symbol);
  for (const symbol of old.slice(0, Math.max(0, state.cards.size - most))) {
    state.cards.get(symbol).root.remove();
    for (const kept of [state.cards, state.newest, state.tapes]) kept.delete(symbol);
  }
  state.symbols = [...state.cards.keys()];
  return added.length > 0;
}

/** Shows the price, and whether it went up or down. */
export function showPrice(card, price, symbol) {
  const before = card.price.dataset.amount;
  fill(card.price, price, priceOf(symbol));
  if (!before) return;
  const { direction } = change(before, price);
  card.arrow.textContent = ["▼", "", "▲"][direction + 1];
  card.arrow.className = ["arrow down", "arrow", "arrow up"][direction + 1];
}

/** Shows how the price has changed since the trades that `card.before` has. */
export function showChanges(card) {
  const price = card.price.dataset.amount;
  for (const [step, value] of Object.entries(card.steps)) {
    const before = card.before[step];
    if (!before || !price) {
      value.textContent = "–";
      value.title = "no trade is stored from that long ago";
      continue;
    }
    const { difference, percent, tone } = change(before.price, price);
    value.className = tone;
    value.textContent = percent;
    value.title = `${difference} since ${before.price} at ${clock(before.timestamp, true)} UTC`;
  }
}

/** Shows how many trades there are per second, and how late they come. */
export function showSpeed(card, { per_second: perSecond, lag_ms: lag }) {
  card.rate.add(perSecond);
  card.lag.add(lag);
  const parts = [];
  if (perSecond !== null) parts.push(`${perSecond.toFixed(1)}/s`);
  if (lag !== null) parts.push(`lag ${lag} ms`);
  card.speed.textContent = parts.join(" · ");
  card.speed.title = "trades per second; median time from the exchange's clock to this recorder's";
}

/** Shows the low, the high and the volume of the last 24 hours; null: they are not known. */
export function showDay(card, day, symbol) {
  const [price, quantity] = [priceOf(symbol), quantityOf(symbol)];
  const missing = day?.missing ? ` (${day.missing.toLocaleString("en")} trades are missing in that time)` : "";
  const about = `${missing}${day?.unknown_before ? `, of which nothing before ${day.unknown_before} is stored` : ""}`;
  const paid = day ? `${day.quote_volume} ${unit(price)}`.trim() : "";
  card.day.title = day ? `the 24 hours up to the newest trade${about}; traded for ${paid}` : "not known yet";
  const facts = [["24h low", day?.low, price], ["high", day?.high, price], ["volume", day?.volume, quantity]];
  card.day.replaceChildren(...facts.map(([name, text, kind]) => {
    const part = document.createElement("span");
    part.append(`${name} `, text ? exact(text, "", kind) : "–");
    if (text && kind === quantity) part.append(" ", unit(kind));
    return part;
  }));
  if (day?.missing || day?.unknown_before) card.day.append(Object.assign(document.createElement("span"), { className: "down", textContent: "incomplete" }));
}
