// What is chosen, kept in the page's address, so that it can be linked to and the Back button goes through it:
// #SYMBOL/RESOLUTION, and the range that was asked for behind it, as in
// #BTCUSDT/5m/2025-11-20T10:00:00Z/2025-11-20T11:00:00Z. What cannot be read of an address is left out, never an error.

export const RESOLUTIONS = ["1s", "1m", "5m", "15m", "1h", "4h", "1d"];

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/;

/** A time as it stands in an address, such as 2025-11-20T10:00:00Z; null: `text` is none. */
function time(text) {
  const at = TIME.test(text ?? "") ? new Date(text) : null;
  // The 31st of February would be read as a day in March.
  if (!at || Number.isNaN(at.getTime()) || at.toISOString().slice(0, 19) !== text.slice(0, 19)) return null;
  return at.toISOString().replace(".000Z", "Z");
}

/** The range from `start` to `end`, two texts; null: it is none, or empty. */
function range(start, end) {
  const [from, to] = [time(start), time(end)];
  return from && to && Date.parse(from) < Date.parse(to) ? { start: from, end: to } : null;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

/** What an address names: `symbol`, `resolution` and `range` ({start, end}), null for each that is not there or damaged. */
export function read(hash = location.hash) {
  const [symbol, resolution, start, end] = hash.replace(/^#/, "").split("/").map(decoded);
  return {
    symbol: symbol || null,
    resolution: RESOLUTIONS.includes(resolution) ? resolution : null,
    range: range(start, end),
  };
}

/** The address of a choice. */
export function written({ symbol, resolution, range: asked }) {
  const times = asked && range(asked.start, asked.end);
  return `#${[encodeURIComponent(symbol), resolution, ...times ? [times.start, times.end] : []].join("/")}`;
}

/** Puts a choice into the address; Back leads to what was there before, unless it `replaces` that. */
export function keep(choice, replaces = false) {
  const address = written(choice);
  if (address === location.hash) return;
  if (replaces) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

/** Calls `follow` with what the address names whenever it becomes another: by Back, Forward, or by hand. */
export function onMove(follow) {
  addEventListener("popstate", () => follow(read()));
}
