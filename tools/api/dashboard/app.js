// The dashboard: cards of the symbols, chart, tape, forms, what is missing and how it is proven, fed by the API's stream.

import { keep, onMove, read } from "/static/address.js";
import { copyExactly, priceOf, quantityOf, unit } from "/static/amounts.js";
import { FEW, showCards, showChanges, showDay, showPrice, showSpeed } from "/static/cards.js";
import { CandleChart, firstResolution } from "/static/chart.js";
import { onMissing, showFreshness } from "/static/completeness.js";
import { Coverage } from "/static/coverage.js";
import { Finder } from "/static/finder.js";
import { connect } from "/static/forms.js";
import { $, silence, state, trouble } from "/static/page.js";
import { ask, listen, onToken } from "/static/stream.js";
import { connectTape, drawTape, onTape } from "/static/tape.js";
import { onNewest, showTrouble } from "/static/trouble.js";
import { isLocal, setLocal } from "/static/zone.js";

const FIRST_SYMBOLS = ["BTCUSDT", "ETHUSDT"];
const SYMBOLS_MS = 30_000;
const FIRST_MS = 2_000;
const SLOW_MS = 4_000;
const AGE_MS = 500;
const SYMBOL_CHARS = 40;

let listenTo = () => {};

const chart = new CandleChart($("chart"), {
  legend: $("legend"), table: $("bars").tBodies[0], note: $("chart-gaps"), wrong: $("chart-wrong"),
});
const forms = connect(() => state.symbol, (answer, isChosen) => {
  chart.mark(answer);
  if (!isChosen) return;
  state.range = { start: answer.start, end: answer.end };
  keep(state);
  reveal();
});
const coverage = new Coverage($("coverage"));
const chooseSymbol = (symbol) => choose(symbol, state.resolution);
const finder = new Finder($("finder"), chooseSymbol);

/** Brings the range that was asked for into the chart's sight, or says why not. */
async function reveal() {
  const note = $("chart-far");
  note.hidden = true;
  // A call that was given up for a newer one says nothing: the newer one does.
  if (!state.range || (await chart.reveal(state.range)) !== false) return;
  note.hidden = false;
  note.textContent = `The range that was asked for is further back than candles of ${state.resolution} reach: choose longer ones.`;
}

// ---- What is chosen: kept in the address, so that it can be linked to.

/** Shows what an address names; of what it does not name, or names wrongly, what is shown already or `first`. */
function follow({ symbol, resolution, range }, first = state.symbol) {
  if (!first) return;
  const isStored = state.all.includes(symbol);
  choose(isStored ? symbol : first, resolution ?? state.resolution, { range, replaces: true });
  forms.leave();
  if (range) forms.range(range);
  const note = $("address-note");
  note.hidden = symbol === null || isStored;
  note.textContent = note.hidden ? "" : `No trade of ${symbol.slice(0, SYMBOL_CHARS)} is stored. Shown is ${first}.`;
}

function choose(symbol, resolution, { range = state.range, replaces = false } = {}) {
  const other = symbol !== state.symbol;
  Object.assign(state, { symbol, resolution, range });
  if (showCards([symbol], chooseSymbol)) listenTo(state.symbols);
  keep(state, replaces);
  $("address-note").hidden = true;
  document.querySelector(`[name=resolution][value="${resolution}"]`).checked = true;
  for (const [name, card] of state.cards) card.input.checked = name === symbol;
  $("chart-title").textContent = symbol;
  $("tape-title").textContent = `Last trades of ${symbol}`;
  $("tape-price").textContent = `Price ${unit(priceOf(symbol))}`.trim();
  $("tape-quantity").textContent = `Quantity ${unit(quantityOf(symbol))}`.trim();
  $("coverage-title").textContent = `Coverage of ${symbol}`;
  $("chart").ariaBusy = "true";
  chart.show(symbol, resolution).then((isShown) => {
    if (!isShown) return;
    $("chart").ariaBusy = "false";
    reveal();
  });
  if (other) {
    drawTape();
    forms.repeat();
    coverage.show(symbol);
  }
}

// ---- Cards.

/** Takes in the symbols that are stored. Returns whether the page must be made anew for them. */
function showSymbols(symbols) {
  const known = new Set(state.all);
  if (known.size && symbols.every((symbol) => known.has(symbol))) return false;
  if (known.size && known.size <= FEW) return true;
  state.all = symbols;
  $("symbols").ariaBusy = "false";
  $("nothing").hidden = symbols.length > 0;
  if (symbols.length > FEW) finder.update(symbols);
  else showCards(symbols, chooseSymbol);
  return false;
}

// ---- What the stream says.

function onTick(tick) {
  const card = state.cards.get(tick.symbol);
  if (!card) return;
  state.ahead = Date.parse(tick.time) - Date.now();
  const time = Date.parse(tick.latest.timestamp);
  state.newest.set(tick.symbol, time);
  showPrice(card, tick.latest.price, tick.symbol);
  showChanges(card);
  onTape(tick);
  if (tick.symbol !== state.symbol) return;
  if (tick.candles[state.resolution]) chart.update(tick.candles[state.resolution]);
  forms.newest(time);
}

function onStatus(status) {
  state.ahead = Date.parse(status.time) - Date.now();
  trouble.database = status.trouble;
  trouble.capture = status.capture;
  if (status.newest) onNewest(Date.parse(status.newest));
  $("database").hidden = false;
  $("database").textContent = status.database_name;
  $("demo").hidden = !status.demo;
  for (const [symbol, one] of Object.entries(status.symbols)) {
    const card = state.cards.get(symbol);
    if (!card) continue;
    card.before = one.before;
    showChanges(card);
    showSpeed(card, one);
    showDay(card, one.day, symbol);
  }
  if (status.database) onMissing(status, () => chart.refresh());
  showTrouble();
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
$("local-time").checked = isLocal();
$("local-time").addEventListener("change", () => {
  setLocal($("local-time").checked);
  chart.paint();
});
copyExactly();
connectTape();
$("bars").closest("details").addEventListener("toggle", () => chart.describe());
setInterval(() => {
  showFreshness();
  showTrouble();
  coverage.away(silence());
}, AGE_MS);

/** The symbols that are stored; null if there is no answer, which is said. */
async function findFirst() {
  const waiting = setTimeout(() => {
    Object.assign(trouble, { waiting: true, started: true });
    showTrouble();
  }, SLOW_MS);
  try {
    const { symbols } = await ask("symbols");
    Object.assign(trouble, { connection: null, database: null });
    return symbols;
  } catch (error) {
    const away = error.message.includes("is away") ? "away" : "silent";
    Object.assign(trouble, error.status === 503 ? { connection: null, database: away } : { connection: error.message });
    return null;
  } finally {
    clearTimeout(waiting);
    Object.assign(trouble, { waiting: false, started: true });
    showTrouble();
  }
}

/** Looks for symbols that are new. One that has a card needs a stream that has it, which a new page opens. */
async function findNew() {
  // The stream says what is wrong when there is no answer.
  const { symbols } = await ask("symbols").catch(() => ({ symbols: state.all }));
  if (showSymbols(symbols)) location.reload();
}

async function start() {
  let symbols = null;
  while (!symbols?.length) {
    symbols = await findFirst();
    if (symbols) showSymbols(symbols);
    if (!symbols?.length) await new Promise((resolve) => setTimeout(resolve, FIRST_MS));
  }
  const first = [...new Set([...FIRST_SYMBOLS.filter((symbol) => symbols.includes(symbol)), ...symbols])];
  if (symbols.length > FEW) showCards(first.slice(0, FIRST_SYMBOLS.length), chooseSymbol);
  const [wanted, fallback] = [read(), symbols.length > FEW ? first[0] : symbols[0]];
  const symbol = symbols.includes(wanted.symbol) ? wanted.symbol : fallback;
  wanted.resolution ??= await firstResolution(symbol).catch(() => state.resolution);
  follow(wanted, fallback);
  onMove(follow);
  setInterval(findNew, SYMBOLS_MS);
  let lost = false;
  listenTo = listen(state.symbols, {
    up: () => {
      trouble.connection = null;
      if (lost) coverage.refresh();
      lost = false;
    },
    // What was stored between the chart's answer and this is in no tick.
    begin: () => chart.refresh(),
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
