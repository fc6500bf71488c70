// What the chart says in words: the candle that is pointed at, and the last candles as a table.

import { change, exact, priceOf, quantityOf, unit } from "/static/amounts.js";
import { day, moment, zoneAt } from "/static/zone.js";

const number = (value) => value.toLocaleString("en");

export const missingWords = (missing) => `${number(missing)} ${missing === 1 ? "id" : "ids"} missing here`;

function part(name, ...content) {
  const found = document.createElement("span");
  found.append(name ? `${name} ` : "", ...content);
  return found;
}

function when(time, resolution) {
  // The seconds of a candle of minutes are always zero.
  const length = { "1s": 19, "1d": 10 }[resolution] ?? 16;
  return `${moment(time, resolution).slice(0, length)} ${zoneAt(time, resolution)}`;
}

/** The parts of the legend for a place: its time, and of its `bar`, if there is one, prices, volume and trades. */
export function legend({ symbol, resolution }, time, bar, missing) {
  const found = [part("", when(time, resolution))];
  found[0].className = "when";
  if (bar) {
    const { percent, tone } = change(bar.open, bar.close);
    const moved = part("", percent);
    moved.className = tone;
    const prices = [["O", bar.open], ["H", bar.high], ["L", bar.low], ["C", bar.close]];
    found.push(
      ...prices.map(([name, text]) => part(name, exact(text, "", priceOf(symbol)))),
      moved,
      part("Vol", exact(bar.volume, "", quantityOf(symbol)), ` ${unit(quantityOf(symbol))}`),
      part("", `${number(bar.trades)} ${bar.trades === 1 ? "trade" : "trades"}`),
    );
  } else found.push(part("", missing ? "no trade is stored" : "nothing traded"));
  if (missing) {
    found.push(part("", missingWords(missing)));
    found.at(-1).className = "down";
  }
  return found;
}

/** The row of a candle. */
export function row({ symbol, resolution }, time, bar) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = when(time, resolution).replace(/ UTC.*$/, "");
  const cells = [bar.open, bar.high, bar.low, bar.close].map((text) => exact(text, "", priceOf(symbol)));
  const missing = bar.missing ? number(bar.missing) : "";
  line.append(head, ...[...cells, exact(bar.volume, "", quantityOf(symbol)), number(bar.trades), missing].map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  }));
  return line;
}

/** What stands at a place of the axis of times; `type` is that of the chart's library: year, month, day, minute, second. */
export function tick(time, type, resolution) {
  if (type === 0 && resolution === "1d") return moment(time, resolution).slice(0, 4);
  if (type < 3) return day(time, resolution);
  return moment(time, resolution).slice(11, type === 3 ? 16 : 19);
}

/** What stands at the axis of times under the pointer. */
export const pointedAt = (time, resolution) => when(time, resolution);
