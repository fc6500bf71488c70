// The two questions: the price at a second, and the low and the high of a range.

import { change, exact, priceOf, unitElement } from "/static/amounts.js";
import { ask } from "/static/stream.js";

const SECOND_AGO_S = 10;
const SECOND_MS = 1_000;
// The end of a range up to now is so far behind the newest trade, which is not worth a word.
const UP_TO_NOW_MS = 2_000;

/** Such as "10:15:09.250", or with its date where `dated`. */
export const clock = (time, dated = false) => (dated ? time.slice(0, 23).replace("T", " ") : time.slice(11, 23));

/** What stands in a field for a moment: UTC, to the second. */
const local = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");

/** Elements of a fact: what it is, and its value. */
export function fact(name, ...content) {
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = name;
  value.append(...content);
  return [term, value];
}

const price = (text, symbol) => [exact(text, "", priceOf(symbol)), " ", unitElement(priceOf(symbol))];

function trade(one, dated) {
  const when = document.createElement("span");
  when.className = "when";
  when.textContent = `${clock(one.timestamp, dated)}`;
  when.title = `trade ${one.trade_id}, ${one.quantity}, the taker ${one.buyer_is_maker ? "sold" : "bought"}`;
  return [...price(one.price, one.symbol), " ", when];
}

function list(...facts) {
  const found = document.createElement("dl");
  found.className = "facts";
  found.append(...facts.flat());
  return found;
}

function words(text, className = "") {
  const paragraph = document.createElement("p");
  paragraph.className = className;
  paragraph.textContent = text;
  return paragraph;
}

/** That ids are missing in `where`, if any are, and what may be wrong `therefore`. */
function missing(answer, where, therefore) {
  if (!answer.missing) return [];
  const trades = answer.missing === 1 ? "1 trade is" : `${answer.missing.toLocaleString("en")} trades are`;
  return [words(`Up to ${trades} missing in ${where}: ${therefore}.`, "incomplete")];
}

/** That nothing is known of the time before the oldest or behind the newest stored trade, if what was asked about is
 * there by more than `most` milliseconds. */
function outside(answer, end, most) {
  const { unknown_before: before, unknown_after: after } = answer;
  const said = [];
  if (before) said.push(`The oldest stored trade is of ${clock(before, true)}: what traded before that is not known.`);
  if (after && Date.parse(end) - Date.parse(after) > most) {
    said.push(`The newest stored trade is of ${clock(after, true)}: what traded after that is not known.`);
  }
  return said.map((text) => words(text, "incomplete"));
}

// ---- Fields: what was typed is checked here, so that its error stands at the field, in words for whoever typed it.

const NO_TIME = "This is no time. Write it like 2025-11-20 10:15:09.";
const EMPTY = "The end must be after the start.";
const TIME = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?$/i;

/** The milliseconds of the time in a text, UTC unless it says otherwise; NaN: it is none. */
function parsed(text) {
  const [, day, minute = "00:00", second = ":00", offset = "Z"] = TIME.exec(text.trim()) ?? [];
  const time = Date.parse(`${day}T${minute}${second}${offset.toUpperCase().replace(/^(...)(\d\d)$/, "$1:$2")}`);
  // JavaScript takes 30 February for 2 March.
  const same = new Date(Date.parse(`${day}T00:00:00Z`)).getUTCDate() === Number(day?.slice(8));
  return same ? time : NaN;
}

/** Says what is wrong with a field; an empty text: nothing. */
function say(field, wrong) {
  const line = document.getElementById(`${field.id}-wrong`);
  line.textContent = wrong;
  line.hidden = !wrong;
  if (wrong) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** Whether the fields of a form can be asked about; says at each what is wrong, and goes to the first that is. */
function check({ elements }) {
  const fields = ["time", "start", "end"].map((name) => elements[name]).filter(Boolean);
  const wrong = new Map(fields.map((field) => [field, Number.isNaN(parsed(field.value)) ? NO_TIME : ""]));
  const [start, end] = [elements.start, elements.end];
  if (start && !wrong.get(start) && !wrong.get(end) && parsed(end.value) <= parsed(start.value)) wrong.set(end, EMPTY);
  wrong.forEach((text, field) => say(field, text));
  const first = fields.find((field) => wrong.get(field));
  // Only where it was sent by hand: another symbol sends it too.
  if (first && document.activeElement?.form === first.form) first.focus();
  return !first;
}

/** An answer that is none, in words for who filled a form. */
function refusal({ status, message }) {
  if (status === 422) return "This cannot be looked up: check the times.";
  if (status === 404) return "No trade of this symbol is stored.";
  if (status === 0 || status === 503) return "There is no answer now. Try again when the page is live.";
  return `There is no answer: ${message}.`;
}

const plural = (count) => (count === 1 ? "1 trade" : `${count.toLocaleString("en")} trades`);

function second(answer) {
  if (answer.count) {
    return [list(
      fact("First", ...trade(answer.first)),
      fact("Low", ...trade(answer.low)),
      fact("High", ...trade(answer.high)),
      fact("Last", ...trade(answer.last)),
      ...answer.time === answer.second ? [] : [fact(`At ${clock(answer.time)}`, ...answer.as_of ? trade(answer.as_of, true) : ["not known"])],
    ), words(`${plural(answer.count)} of ${answer.symbol} in that second.`, "note"), ...missing(
      answer, "that second", "first, low, high and last may be wrong",
    ), ...outside(answer, answer.second, -SECOND_MS)];
  }
  const isUnknown = answer.missing || answer.unknown_after;
  const stored = isUnknown ? " is stored" : "";
  const note = [
    ...missing(answer, "that second", "it may well have traded, and at another price"),
    ...outside(answer, answer.second, -SECOND_MS),
  ];
  if (!answer.as_of) {
    if (new Date(answer.time) > new Date()) return [words("That second has not come yet.")];
    return [words(`No trade of ${answer.symbol} is stored in that second, and none from before it.`), ...note];
  }
  return [
    words(`No trade${stored} in that second. ${isUnknown
      ? "The last one that is stored from before it:"
      : "The price at that time was that of the last trade before it:"}`),
    list(fact(isUnknown ? "Last stored price" : "Price at that time", ...trade(answer.as_of, true))),
    ...note,
  ];
}

function lowAndHigh(answer) {
  if (!answer.count) {
    return [
      words(`No trade of ${answer.symbol}${answer.missing || answer.unknown_after || !answer.as_of ? " is stored" : ""} in that range.`),
      ...missing(answer, "that range", "it may well have traded"),
      ...outside(answer, answer.end, 0),
    ];
  }
  const { difference, percent, tone } = change(answer.first.price, answer.last.price);
  const moved = document.createElement("span");
  moved.className = tone;
  moved.append(...price(difference, answer.symbol), ` (${percent})`);
  return [list(
    fact("Low", ...trade(answer.low, true)),
    fact("High", ...trade(answer.high, true)),
    fact("High − low", ...price(change(answer.low.price, answer.high.price).difference.replace("+", ""), answer.symbol)),
    fact("First to last", moved),
  ), words(`${plural(answer.count)} of ${answer.symbol}.`, "note"), ...missing(
    answer, "that range", "first, low, high and last may be wrong",
  ), ...outside(answer, answer.end, UP_TO_NOW_MS)];
}

/** Makes the forms answer for the symbol that `symbol()` says. `onRange` is called with each answer about a range, and
 * whether somebody asked for it now, rather than the page itself. */
export function connect(symbol, onRange) {
  const at = document.getElementById("at");
  const range = document.getElementById("range");
  const lookUp = range.querySelector("[type=submit]");
  let last = null;
  // What was typed or asked before the first trade is known stays.
  const used = new Set();
  for (const form of [at, range]) {
    for (const kind of ["input", "submit"]) form.addEventListener(kind, () => used.add(form));
  }
  let steps = 0;
  const turns = new Map();
  /** From now on an output is for another question. Returns a function that tells whether it still is. */
  const turn = (output) => {
    const mine = (turns.get(output) ?? 0) + 1;
    turns.set(output, mine);
    return () => turns.get(output) === mine;
  };
  const answerWith = (output, how, ...content) => {
    output.replaceChildren(...content);
    output.dataset.state = how;
    output.ariaBusy = "false";
  };
  /** Asks, and shows the answer; a promise of it, or of null where there is none or another question came after it. */
  const reply = async (output, path, parameters, shown) => {
    const isLast = turn(output);
    output.dataset.state = "asking";
    output.ariaBusy = "true";
    try {
      const answer = await ask(path, parameters);
      if (!isLast()) return null;
      answerWith(output, "answered", ...shown(answer));
      return answer;
    } catch (error) {
      if (isLast()) answerWith(output, "refused", words(refusal(error), "wrong"));
      return null;
    }
  };
  /** Whether `form` can be asked about; if not, nothing stays of an answer that was to other times. */
  const good = (form, output) => {
    if (check(form)) return true;
    turn(output);
    answerWith(output, "mistaken");
    return false;
  };
  at.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!good(at, document.getElementById("at-answer"))) return;
    const parameters = { time: at.elements.time.value };
    reply(document.getElementById("at-answer"), `at/${encodeURIComponent(symbol())}`, parameters, second);
  });
  range.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!good(range, document.getElementById("range-answer"))) return;
    const parameters = { start: range.elements.start.value, end: range.elements.end.value };
    const output = document.getElementById("range-answer");
    const step = steps;
    const answer = await reply(output, `range/${encodeURIComponent(symbol())}`, parameters, lowAndHigh);
    if (answer) onRange(answer, event.submitter !== null && step === steps);
  });
  const upToNow = (seconds, submitter) => {
    const end = last ?? Date.now();
    range.elements.start.value = local(end - seconds * 1000);
    range.elements.end.value = local(end + 1000);
    range.requestSubmit(submitter);
  };
  const buttons = [...document.querySelectorAll("[data-last]")];
  for (const button of buttons) button.addEventListener("click", () => upToNow(Number(button.dataset.last), lookUp));
  // A click on a candle: its time is asked about.
  document.getElementById("chart").addEventListener("candle", ({ detail }) => {
    const [start, end] = [detail.start, detail.end].map((time) => local(Date.parse(time)));
    at.elements.time.value = start;
    range.elements.start.value = start;
    range.elements.end.value = end;
    at.requestSubmit();
    range.requestSubmit(lookUp);
  });
  const download = (format) => {
    if (!good(range, document.getElementById("range-answer"))) return;
    const query = new URLSearchParams({ start: range.elements.start.value, end: range.elements.end.value });
    const link = document.createElement("a");
    link.href = `/api/export/${encodeURIComponent(symbol())}.${format}?${query}`;
    link.download = "";
    link.click();
  };
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
  const begin = (newest) => {
    const first = last === null;
    last = newest;
    if (!first) return;
    if (!used.has(range)) upToNow(Number(buttons[0].dataset.last), null);
    if (used.has(at)) return;
    at.elements.time.value = local(newest - SECOND_AGO_S * 1000);
    at.requestSubmit();
  };
  return {
    /** Asks about a range, two texts of ISO 8601 in UTC. */
    range: ({ start, end }) => {
      range.elements.start.value = start.replace("T", " ").replace("Z", "");
      range.elements.end.value = end.replace("T", " ").replace("Z", "");
      range.requestSubmit();
    },
    /** Tells that another address is followed: an answer that is still to come is shown, and nothing goes there for it. */
    leave: () => {
      steps += 1;
    },
    /** The newest trade's time: what "up to now" means; the first one fills the forms. */
    newest: begin,
    /** Asks both questions again, for another symbol. */
    repeat: () => used.forEach((form) => form.requestSubmit()),
  };
}
