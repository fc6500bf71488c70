// The two questions: the price at a second, and the low and the high of a range.

import { change, exact } from "/static/amounts.js";
import { ask } from "/static/stream.js";

const SECOND_AGO_S = 10;

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

function trade(one, dated) {
  const when = document.createElement("span");
  when.className = "when";
  when.textContent = `${clock(one.timestamp, dated)}`;
  when.title = `trade ${one.trade_id}, ${one.quantity}, the taker ${one.buyer_is_maker ? "sold" : "bought"}`;
  return [exact(one.price), " ", when];
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

const plural = (count) => (count === 1 ? "1 trade" : `${count.toLocaleString("en")} trades`);

function second(answer) {
  if (answer.count) {
    return [list(
      fact("First", ...trade(answer.first)),
      fact("Low", ...trade(answer.low)),
      fact("High", ...trade(answer.high)),
      fact("Last", ...trade(answer.last)),
    ), words(`${plural(answer.count)} of ${answer.symbol} in that second.`, "note"), ...missing(
      answer, "that second", "first, low, high and last may be wrong",
    )];
  }
  const stored = answer.missing ? " is stored" : "";
  const note = missing(answer, "that second", "it may well have traded, and at another price");
  if (!answer.as_of) {
    return [words(new Date(answer.time) > new Date()
      ? "That second has not come yet."
      : `No trade of ${answer.symbol}${stored} in that second, and none is stored from before it.`), ...note];
  }
  return [
    words(`No trade${stored} in that second. ${answer.missing
      ? "The last one that is stored from before it:"
      : "The price at that time was that of the last trade before it:"}`),
    list(fact(answer.missing ? "Last stored price" : "Price at that time", ...trade(answer.as_of, true))),
    ...note,
  ];
}

function lowAndHigh(answer) {
  if (!answer.count) {
    return [
      words(`No trade of ${answer.symbol}${answer.missing ? " is stored" : ""} in that range.`),
      ...missing(answer, "that range", "it may well have traded"),
    ];
  }
  const { direction, difference, percent } = change(answer.first.price, answer.last.price);
  const moved = document.createElement("span");
  moved.className = ["down", "", "up"][direction + 1];
  moved.append(exact(difference), ` (${percent})`);
  return [list(
    fact("Low", ...trade(answer.low, true)),
    fact("High", ...trade(answer.high, true)),
    fact("High − low", exact(change(answer.low.price, answer.high.price).difference.replace("+", ""))),
    fact("First to last", moved),
  ), words(`${plural(answer.count)} of ${answer.symbol}.`, "note"), ...missing(
    answer, "that range", "first, low, high and last may be wrong",
  )];
}

/** Makes the forms answer for the symbol that `symbol()` says. */
export function connect(symbol) {
  const at = document.getElementById("at");
  const range = document.getElementById("range");
  let last = null;
  const reply = async (output, path, parameters, shown) => {
    output.dataset.state = "asking";
    try {
      output.replaceChildren(...shown(await ask(path, parameters)));
      output.dataset.state = "answered";
    } catch (error) {
      output.replaceChildren(words(error.message, "wrong"));
      output.dataset.state = "refused";
    }
  };
  at.addEventListener("submit", (event) => {
    event.preventDefault();
    const parameters = { time: at.elements.time.value };
    reply(document.getElementById("at-answer"), `at/${encodeURIComponent(symbol())}`, parameters, second);
  });
  range.addEventListener("submit", (event) => {
    event.preventDefault();
    const parameters = { start: range.elements.start.value, end: range.elements.end.value };
    reply(document.getElementById("range-answer"), `range/${encodeURIComponent(symbol())}`, parameters, lowAndHigh);
  });
  for (const button of document.querySelectorAll("[data-last]")) {
    button.addEventListener("click", () => {
      const end = last ?? Date.now();
      range.elements.start.value = local(end - Number(button.dataset.last) * 1000);
      range.elements.end.value = local(end + 1000);
      range.requestSubmit();
    });
  }
  const begin = (newest) => {
    const first = last === null;
    last = newest;
    if (!first) return;
    at.elements.time.value = local(newest - SECOND_AGO_S * 1000);
    at.requestSubmit();
    document.querySelector("[data-last]").click();
  };
  return {
    /** The newest trade's time: what "up to now" means; the first one fills the forms. */
    newest: begin,
    /** Asks both questions again, for another symbol. */
    repeat: () => last !== null && [at, range].forEach((form) => form.requestSubmit()),
  };
}
