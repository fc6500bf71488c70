// The dashboard: cards of the symbols, chart, tape, forms, what is missing and how it is proven, fed by the API's stream.

import { change, exact, fill } from "/static/amounts.js";
import { CandleChart } from "/static/chart.js";
import { Coverage } from "/static/coverage.js";
import { clock, connect, fact } from "/static/forms.js";
import { ask, listen, onToken } from "/static/stream.js";

const SYMBOLS_MAX = 20;
const TAPE_ROWS = 24;
const SYMBOLS_MS = 30_000;
const FIRST_MS = 2_000;
const AGE_MS = 500;
const OLD_MS = 10_000;
const GAPS_SHOWN = 20;

const $ = (id) => document.getElementById(id);
const state = { symbols: [], symbol: null, resolution: "1m", cards: new Map(), newest: new Map(), tapes: new Map() };
// What is wrong: the connection, the database; null: nothing. The clock of the server less ours, in milliseconds.
const trouble = { connection: null, database: false, started: false };
let ahead = 0;

const chart = new CandleChart($("chart"), $("legend"), $("bars").tBodies[0], $("chart-gaps"));
const forms = connect(() => state.symbol);
const coverage = new Coverage($("coverage"));

// ---- What is chosen: kept in the address, so that it can be linked to.

function fromAddress() {
  const [symbol, resolution] = decodeURIComponent(location.hash.slice(1)).split("/");
  if (["1m", "1h", "1d"].includes(resolution)) state.resolution = resolution;
  document.querySelector(`[name=resolution][value="${state.resolution}"]`).checked = true;
  return symbol;
}

function choose(symbol, resolution) {
  const other = symbol !== state.symbol;
  Object.assign(state, { symbol, resolution });
  history.replaceState(null, "", `#${encodeURIComponent(symbol)}/${resolution}`);
  for (const [name, card] of state.cards) card.input.checked = name === symbol;
  $("chart-title").textContent = symbol;
  $("tape-title").textContent = `Last trades of ${symbol}`;
  $("coverage-title").textContent = `Coverage of ${symbol}`;
  chart.show(symbol, resolution).catch(() => {});
  if (other) {
    drawTape();
    forms.repeat();
    coverage.show(symbol);
  }
}

// ---- Cards.

function makeCard(symbol) {
  const root = document.createElement("label");
  root.className = "card";
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "symbol", value: symbol });
  input.addEventListener("change", () => choose(symbol, state.resolution));
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: symbol });
  const speed = Object.assign(document.createElement("span"), { className: "speed" });
  const price = Object.assign(document.createElement("span"), { className: "price amount", textContent: "…" });
  const arrow = Object.assign(document.createElement("span"), { className: "arrow", ariaHidden: "true" });
  const line = Object.assign(document.createElement("span"), { className: "price-line" });
  line.append(price, arrow);
  const changes = Object.assign(document.createElement("span"), { className: "changes" });
  const steps = Object.fromEntries(["1m", "1h", "24h"].map((step) => {
    const value = Object.assign(document.createElement("b"), { textContent: "–" });
    const part = document.createElement("span");
    part.append(`${step} `, value);
    changes.append(part);
    return [step, value];
  }));
  const head = Object.assign(document.createElement("span"), { className: "card-head" });
  head.append(name, speed);
  root.append(input, head, line, changes);
  return { root, input, price, arrow, speed, steps, before: {} };
}

function showSymbols(symbols) {
  const added = symbols.slice(0, SYMBOLS_MAX).filter((symbol) => !state.cards.has(symbol));
  for (const symbol of added) {
    const card = makeCard(symbol);
    state.cards.set(symbol, card);
    $("symbols").append(card.root);
  }
  state.symbols = [...state.cards.keys()];
  $("nothing").hidden = state.symbols.length > 0;
  return added.length > 0;
}

function showPrice(card, price) {
  const before = card.price.dataset.amount;
  fill(card.price, price);
  if (!before || before === price) return;
  const { direction } = change(before, price);
  card.arrow.textContent = direction > 0 ? "▲" : "▼";
  card.arrow.className = direction > 0 ? "arrow up" : "arrow down";
}

function showChanges(card) {
  const price = card.price.dataset.amount;
  for (const [step, value] of Object.entries(card.steps)) {
    const before = card.before[step];
    if (!before || !price) {
      value.textContent = "–";
      value.title = "no trade is stored from that long ago";
      continue;
    }
    const { direction, difference, percent } = change(before.price, price);
    value.className = ["down", "", "up"][direction + 1];
    value.textContent = percent;
    value.title = `${difference} since ${before.price} at ${clock(before.timestamp, true)} UTC`;
  }
}

// ---- What the stream says.

function onTick(tick) {
  const card = state.cards.get(tick.symbol);
  if (!card) return;
  ahead = Date.parse(tick.time) - Date.now();
  const time = Date.parse(tick.latest.timestamp);
  state.newest.set(tick.symbol, time);
  showPrice(card, tick.latest.price);
  showChanges(card);
  const known = state.tapes.get(tick.symbol) ?? [];
  const newest = known[0]?.trade_id ?? 0;
  state.tapes.set(tick.symbol, [...tick.tape.filter((one) => one.trade_id > newest), ...known].slice(0, TAPE_ROWS));
  if (tick.symbol !== state.symbol) return;
  drawTape();
  if (tick.candles[state.resolution]) chart.update(tick.candles[state.resolution]);
  forms.newest(time);
}

function onStatus(status) {
  ahead = Date.parse(status.time) - Date.now();
  trouble.database = !status.database;
  $("database").hidden = false;
  $("database").textContent = status.database_name;
  $("demo").hidden = !status.demo;
  for (const [symbol, one] of Object.entries(status.symbols)) {
    const card = state.cards.get(symbol);
    if (!card) continue;
    card.before = one.before;
    showChanges(card);
    const parts = [];
    if (one.per_second !== null) parts.push(`${one.per_second.toFixed(1)}/s`);
    if (one.lag_ms !== null) parts.push(`lag ${one.lag_ms} ms`);
    card.speed.textContent = parts.join(" · ");
    card.speed.title = "trades per second; median time from the exchange's clock to this recorder's";
  }
  if (status.database) onMissing(status.symbols, status.time);
  showTrouble();
}

let missingBefore = null;
// What was last known of what is missing, and when; null: nothing yet.
let known = null;

async function onMissing(symbols, time) {
  const gaps = Object.values(symbols).reduce((sum, one) => sum + one.open_gaps, 0);
  const missing = Object.values(symbols).reduce((sum, one) => sum + one.missing, 0);
  const stale = Object.entries(symbols).filter(([, one]) => one.stale).map(([symbol]) => symbol);
  known = { gaps, missing, stale, time };
  showVerdict();
  const key = `${gaps}/${missing}`;
  if (key === missingBefore) return;
  // What was filled since has changed candles that were drawn before.
  if (missingBefore !== null) chart.refresh().catch(() => {});
  missingBefore = key;
  $("gaps").hidden = gaps === 0;
  if (gaps === 0) return;
  try {
    drawGaps((await ask("gaps", { limit: GAPS_SHOWN })).gaps);
  } catch {
    missingBefore = null;
  }
}

/** Whether all is here: it is only known while the API, the database and the capture are alive. */
function verdict() {
  const away = trouble.connection ? "the API does not answer" : trouble.database ? "the database is away" : null;
  if (known === null) return ["unknown", away ? `Not known: ${away}.` : "Not known yet."];
  const { gaps, missing, stale, time } = known;
  const count = `${missing.toLocaleString("en")} ${missing === 1 ? "trade is" : "trades are"} missing, in ${gaps} open ${gaps === 1 ? "gap" : "gaps"}`;
  if (away) {
    const then = gaps === 0 ? "no trade was known to be missing" : count.replace(" is ", " was ").replace(" are ", " were ");
    return ["unknown", `Not known now: ${away}. At ${clock(time, true).slice(0, 19)}, ${then}.`];
  }
  const since = stale.length ? ` What has traded since is not known: no trade of ${stale.join(", ")} comes any more.` : "";
  if (gaps) return ["false", `${count}.${since}`];
  if (since) return ["unknown", `Up to the newest trade none is missing.${since}`];
  return ["true", "Accounted for: every trade from the first stored to the last is here."];
}

function showVerdict() {
  const [state, text] = verdict();
  const words = $("gaps-words");
  words.dataset.complete = state;
  // A screen reader says it again whenever the text changes.
  if (words.textContent !== text) words.textContent = text;
}

function drawGaps(gaps) {
  $("gaps").tBodies[0].replaceChildren(...gaps.map((gap) => {
    const ids = gap.missing === 1 ? `${gap.first_trade_id}` : `${gap.first_trade_id} – ${gap.last_trade_id}`;
    const times = `${clock(gap.timestamp_before, true)} – ${clock(gap.timestamp_after)}`;
    return cells([`${gap.symbol} ${ids}`, gap.missing.toLocaleString("en"), times, gap.reason]);
  }));
}

function cells(contents) {
  const row = document.createElement("tr");
  row.append(...contents.map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  }));
  return row;
}

// ---- Tape: rows are kept and moved, so that a tick costs only its new trades.

const rows = new Map();

function drawTape() {
  const trades = state.tapes.get(state.symbol) ?? [];
  const wanted = new Set(trades.map((one) => `${one.symbol} ${one.trade_id}`));
  for (const [key, row] of rows) {
    if (!wanted.has(key)) {
      row.remove();
      rows.delete(key);
    }
  }
  const body = $("tape").tBodies[0];
  for (const one of [...trades].reverse()) {
    const key = `${one.symbol} ${one.trade_id}`;
    if (rows.has(key)) continue;
    const side = document.createElement("span");
    side.className = one.buyer_is_maker ? "down" : "up";
    side.textContent = one.buyer_is_maker ? "sold" : "bought";
    const row = cells([clock(one.timestamp), exact(one.price), exact(one.quantity), side]);
    row.title = `trade ${one.trade_id}`;
    rows.set(key, row);
    body.prepend(row);
  }
}

// ---- How fresh it is, and what is wrong.

function age(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

function showAge() {
  const now = Date.now() + ahead;
  $("freshness").replaceChildren(...state.symbols.flatMap((symbol) => {
    const newest = state.newest.get(symbol);
    return fact(symbol, newest === undefined ? "no trade yet" : `newest trade ${age(now - newest)} ago`);
  }));
  showTrouble();
}

function problem() {
  if (trouble.connection) return `No connection to the API (${trouble.connection}). Shown is what was last known; trying again.`;
  if (trouble.database) return "The database is away. Shown is what was last known; this page goes on as soon as it is back.";
  const newest = Math.max(...state.newest.values());
  const old = Date.now() + ahead - newest;
  if (state.newest.size && old > OLD_MS) return `No new trade for ${age(old)}. Is the capture running?`;
  return null;
}

function showTrouble() {
  const words = trouble.started ? problem() : null;
  if (trouble.started) showVerdict();
  const banner = $("banner");
  // A screen reader says it again whenever the text changes, so the seconds that pass are left to the eye.
  if ((words ?? "").replace(/[\d.]+ \w+/, "") !== (banner.textContent ?? "").replace(/[\d.]+ \w+/, "")) {
    banner.textContent = words ?? "";
  } else if (words && banner.firstChild) {
    banner.firstChild.data = words;
  }
  banner.hidden = words === null;
  const live = trouble.started && words === null;
  $("connection").dataset.state = live ? "live" : trouble.started ? "away" : "waiting";
  $("connection-text").textContent = live ? "live" : trouble.started ? "not live" : "connecting";
  document.title = words ? "⚠ Trades" : state.symbol ? `${state.cards.get(state.symbol).price.dataset.amount?.replace(/(\.\d\d\d*?)0+$/, "$1") ?? ""} ${state.symbol}` : "Trades";
}

// ---- Start.

onToken((wrong) => new Promise((resolve) => {
  const dialog = $("token");
  $("token-text").value = "";
  $("token-wrong").textContent = wrong;
  $("token-wrong").hidden = !wrong;
  dialog.addEventListener("close", () => resolve($("token-text").value), { once: true });
  if (!dialog.open) dialog.showModal();
}));

$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark") && isDark();
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  chart.paint();
});
const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.paint());
for (const input of document.querySelectorAll("[name=resolution]")) {
  input.addEventListener("change", () => state.symbol && choose(state.symbol, input.value));
}
$("bars").closest("details").addEventListener("toggle", () => chart.describe());
setInterval(showAge, AGE_MS);

async function findSymbols() {
  try {
    const { symbols } = await ask("symbols");
    trouble.connection = null;
    return symbols;
  } catch (error) {
    trouble.database = error.status === 503;
    trouble.connection = error.status === 503 ? null : error.message;
    return [];
  } finally {
    trouble.started = true;
    showTrouble();
  }
}

async function start() {
  const wanted = fromAddress();
  let symbols = [];
  while (symbols.length === 0) {
    symbols = await findSymbols();
    showSymbols(symbols);
    if (symbols.length === 0) await new Promise((resolve) => setTimeout(resolve, FIRST_MS));
  }
  choose(symbols.includes(wanted) ? wanted : symbols[0], state.resolution);
  // A symbol that comes later needs a stream that has it, which a new page opens.
  setInterval(async () => showSymbols(await findSymbols().then((found) => found.length ? found : state.symbols)) && location.reload(), SYMBOLS_MS);
  let lost = false;
  listen(state.symbols, {
    up: () => {
      trouble.connection = null;
      if (lost) {
        chart.refresh().catch(() => {});
        coverage.refresh();
      }
      lost = false;
    },
    down: (error) => {
      lost = true;
      trouble.connection = error.status === 503 ? "too many streams" : error.message;
      showTrouble();
    },
    tick: onTick,
    status: onStatus,
  });
}

start();
