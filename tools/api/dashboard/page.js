// What the parts of the page share: what is chosen, what is known of the symbols, and the server's clock.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** `cards`, `newest` (the newest trade's time in milliseconds) and `tapes` are by symbol. `range`: what
 * was asked about, `start` and `end`; null: nothing was. `ahead`: the clock of the server
 * less ours, in milliseconds. `newestOfAll`: the time of the newest trade of all symbols. */
export const state = {
  all: [],
  symbols: [],
  symbol: null,
  resolution: "1m",
  range: null,
  cards: new Map(),
  newest: new Map(),
  tapes: new Map(),
  ahead: 0,
  newestOfAll: null,
};

/** What is wrong; null: nothing. `connection`: why the API cannot be heard; `database`: `away` or `silent`; `capture`:
 * what is known of it, `running`, `frozen`, `stopped` or nothing; `waiting`: the first answer takes long; `kind`: what the
 * banner says. `started`: whether anything is known yet. */
export const trouble = { connection: null, database: null, capture: null, waiting: false, started: false, kind: null };

/** The database's trouble in words, that of the API before it; null: both answer. */
export function silence() {
  if (trouble.connection) return "the API does not answer";
  if (!trouble.database) return null;
  return trouble.database === "away" ? "the database is away" : "the database does not answer";
}

/** The time by the server's clock, in milliseconds. */
export const serverNow = () => Date.now() + state.ahead;

/** Such as "4.2 s" or "3 min". */
export function age(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** A row of a table. */
export function cells(contents) {
  const row = document.createElement("tr");
  row.append(...contents.map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  }));
  return row;
}
