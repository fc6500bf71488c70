// The calendar of audits: a day is a cell; its sign and its colour are the verdict. Weeks are rows while they are few,
// with the day's number in the cell, and columns when they are many.

import { fact } from "/static/forms.js";
import { ask } from "/static/stream.js";

const AGAIN_MS = 60_000;
const AFTER_REFUSAL_MS = 10_000;
const FEW_WEEKS = 5;
const DAY_MS = 86_400_000;

// The sign of each verdict and what it means. Colour only repeats what the sign says.
const VERDICTS = new Map([
  ["equal", ["=", "same as the exchange's archive, row by row"]],
  ["agrees", ["≈", "every minute agrees with the exchange's klines"]],
  ["contiguous", ["•", "all ids are there, nothing compared yet"]],
  ["gapped", ["!", "ids are missing"]],
  ["different", ["≠", "stored trades differ from the exchange's"]],
  ["unverifiable", ["?", "the exchange has nothing to compare with"]],
  ["not audited", ["", "nobody has looked yet"]],
]);

const element = (name, properties, ...content) => {
  const found = Object.assign(document.createElement(name), properties);
  found.append(...content);
  return found;
};

const number = (value) => value.toLocaleString("en");
const ids = (count) => `${number(count)} ${count === 1 ? "id" : "ids"} missing`;
const verdict = (day) => day.verdict ?? "not audited";
const early = (day) => day.proven_at !== null && !day.day_was_over;

/** A day in words, for a screen reader and a tooltip. */
function words(day) {
  const facts = [verdict(day), `${number(day.trades)} ${day.trades === 1 ? "trade" : "trades"}`, ids(day.missing)];
  if (early(day)) facts.push("audited before the day was over");
  return `${day.day}: ${facts.join(", ")}${day.reason ? `. ${day.reason}` : ""}`;
}

/** Such as "12 days: 10 equal, 1 agrees, 1 gapped (142 ids missing)." */
function summary({ days, missing }) {
  const counts = [...VERDICTS.keys()].map((name) => [days.filter((day) => verdict(day) === name).length, name]);
  const parts = counts.filter(([count]) => count).map(([count, name]) => `${number(count)} ${name}`);
  const many = `${number(days.length)} ${days.length === 1 ? "day" : "days"}`;
  return `${many}: ${parts.join(", ")}${missing ? ` (${ids(missing)})` : ""}.`;
}

/** The week of a day, counted from that of `first`, and its weekday, both from 0; weeks begin on Monday. */
function place(day, first) {
  const weekday = (Math.floor(Date.parse(first) / DAY_MS) + 3) % 7;
  const at = weekday + Math.round((Date.parse(day) - Date.parse(first)) / DAY_MS);
  return [Math.floor(at / 7), at % 7];
}

const dated = (day, options) => new Date(day).toLocaleDateString("en", { timeZone: "UTC", ...options });

export class Coverage {
  #root;
  #cells = [];
  #days = [];
  #few = true;
  #chosen = null;
  #symbol = null;
  #timer = 0;
  #asked = 0;
  #known = null;
  #away = null;

  /** Fills the panel `root`. */
  constructor(root) {
    this.#root = root;
    const calendar = this.#part("calendar");
    calendar.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["click", "focusin"]) {
      calendar.addEventListener(name, (event) => this.#choose(this.#cells.indexOf(event.target.closest("button"))));
    }
    this.#part("verdicts").replaceChildren(...[...VERDICTS].map(([name, [sign, meaning]]) => {
      const swatch = element("span", { className: "day", ariaHidden: "true", textContent: sign });
      swatch.dataset.verdict = name;
      return element("li", {}, swatch, element("span", {}, element("b", { textContent: name }), `: ${meaning}`));
    }));
  }

  /** Shows the days of a symbol. */
  show(symbol) {
    if (symbol !== this.#symbol) {
      this.#symbol = symbol;
      this.#chosen = null;
      this.#known = null;
      this.#draw([]);
      this.#say("");
      this.#part("summary").textContent = "";
      this.#part("hint").hidden = true;
      this.#root.dataset.state = "asking";
      this.#root.ariaBusy = "true";
    }
    return this.refresh();
  }

  /** Takes in why nothing can be known now; null: it can. Then no day is shown as proven, and it is asked again afterwards. */
  away(why) {
    if (why === this.#away) return;
    const back = why === null && this.#symbol !== null;
    this.#away = why;
    this.#root.dataset.known = String(why === null);
    if (why && this.#known) this.#say(this.#was(why));
    if (back) this.refresh();
  }

  #was(why) {
    return `Not known now: ${why}. Shown is what was known at ${this.#known}.`;
  }

  /** Asks now, and again a minute after the answer. What was asked before and is not answered yet counts no more. */
  async refresh() {
    clearTimeout(this.#timer);
    const asked = this.#asked += 1;
    let answer = null;
    let wrong = "";
    try {
      answer = await ask(`coverage/${encodeURIComponent(this.#symbol)}`);
    } catch (error) {
      wrong = error.message;
    }
    if (asked !== this.#asked) return;
    this.#timer = setTimeout(() => this.refresh(), answer ? AGAIN_MS : AFTER_REFUSAL_MS);
    if (answer) this.#take(answer);
    else this.#say(this.#known ? this.#was(this.#away ?? wrong) : `Not known: ${this.#away ?? wrong}.`);
    this.#root.dataset.state = answer ? "answered" : "refused";
    this.#root.ariaBusy = "false";
  }

  #take(answer) {
    this.#known = `${new Date().toISOString().slice(0, 19).replace("T", " ")} UTC`;
    this.#say("");
    this.#draw(answer.days);
    this.#part("summary").textContent = summary(answer);
    this.#part("hint").hidden = answer.days.some((day) => day.proven_at !== null);
  }

  #part(name) {
    return this.#root.querySelector(`[data-part="${name}"]`);
  }

  #say(wrong) {
    const line = this.#part("wrong");
    // A screen reader says it again whenever the text changes.
    if (line.textContent !== wrong) line.textContent = wrong;
    line.hidden = !wrong;
  }

  /** Cells are kept while the days are the same, so that the focus stays where it is. */
  #draw(days) {
    const before = this.#days;
    this.#days = days;
    if (before.length !== days.length || before[0]?.day !== days[0]?.day) this.#build();
    days.forEach((day, index) => this.#fill(this.#cells[index], day));
    this.#detail();
  }

  #build() {
    const calendar = this.#part("calendar");
    const hadFocus = calendar.contains(document.activeElement);
    const days = this.#days;
    const weeks = days.length ? place(days.at(-1).day, days[0].day)[0] + 1 : 0;
    this.#few = weeks <= FEW_WEEKS;
    this.#cells = days.map(() => element("button", { type: "button", className: "day", tabIndex: -1 }));
    this.#root.dataset.weeks = this.#few ? "few" : "many";
    calendar.replaceChildren(...this.#labels(weeks), ...days.map((day, index) => {
      const cell = element("li", {}, this.#cells[index]);
      this.#put(cell, ...place(day.day, days[0].day));
      return cell;
    }));
    const chosen = days.findIndex((day) => day.day === this.#chosen);
    if (days.length) this.#choose(chosen < 0 ? days.length - 1 : chosen, hadFocus);
    calendar.parentElement.scrollLeft = this.#few ? 0 : calendar.parentElement.scrollWidth;
  }

  /** The weekdays and the weeks; each cell says its day itself, so these are for the eye. */
  #labels(weeks) {
    const days = this.#days;
    const label = (text, week, weekday) => {
      const found = element("li", { className: "label", role: "presentation", ariaHidden: "true", textContent: text });
      this.#put(found, week, weekday);
      return found;
    };
    if (!weeks) return [];
    const weekdays = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].map((name, index) => label(name, -1, index));
    weekdays.forEach((one) => one.classList.add("weekday"));
    // A week is named after the month that begins in it; of two names side by side the first would have no room.
    const starts = days.filter((day, index) => index === 0 || (this.#few
      ? place(day.day, days[0].day)[1] === 0
      : day.day.endsWith("-01")));
    const named = starts.map((day) => [place(day.day, days[0].day)[0], day.day]);
    const roomy = named.filter(([week], index) => this.#few || !(named[index + 1]?.[0] - week < 3));
    return [...weekdays, ...roomy.map(([week, day], index) => {
      const month = index === 0 || day.slice(5, 7) === "01" ? { month: "short", year: "numeric" } : { month: "short" };
      return label(dated(day, this.#few ? { month: "short", day: "numeric" } : month), week, -1);
    })];
  }

  #put(cell, week, weekday) {
    const [row, column] = this.#few ? [week, weekday] : [weekday, week];
    cell.style.gridArea = `${row + 2} / ${column + 2}`;
  }

  #fill(cell, day) {
    const name = verdict(day);
    const text = words(day);
    cell.dataset.verdict = name;
    cell.dataset.early = String(early(day));
    if (cell.title === text) return;
    cell.title = text;
    cell.ariaLabel = text;
    const date = element("span", { className: "date", textContent: `${Number(day.day.slice(8))}` });
    cell.replaceChildren(date, element("span", { className: "sign", textContent: VERDICTS.get(name)?.[0] ?? "?" }));
  }

  #choose(index, focus = false) {
    if (index < 0) return;
    this.#chosen = this.#days[index].day;
    // One stop of the tab key for all days: arrows move between them.
    this.#cells.forEach((cell, at) => {
      cell.tabIndex = at === index ? 0 : -1;
      cell.ariaPressed = String(at === index);
    });
    if (focus) this.#cells[index].focus();
    this.#detail();
  }

  #key(event) {
    const at = this.#days.findIndex((day) => day.day === this.#chosen);
    const [week, day] = this.#few ? ["Down", "Right"] : ["Right", "Down"];
    const back = { Down: "Up", Right: "Left" };
    const steps = { [day]: 1, [back[day]]: -1, [week]: 7, [back[week]]: -7 };
    const last = this.#days.length - 1;
    const wanted = { Home: 0, End: last }[event.key] ?? at + (steps[event.key.replace("Arrow", "")] ?? NaN);
    if (Number.isNaN(wanted)) return;
    event.preventDefault();
    if (wanted >= 0 && wanted <= last) this.#choose(wanted, true);
  }

  #detail() {
    const day = this.#days.find((one) => one.day === this.#chosen);
    const [, meaning] = VERDICTS.get(day && verdict(day)) ?? ["", ""];
    const audited = day?.proven_at && `${day.proven_at.slice(0, 19).replace("T", " ")} UTC`;
    this.#part("detail").replaceChildren(...day ? [
      ...fact(dated(day.day, { weekday: "short", year: "numeric", month: "short", day: "numeric" }),
        element("b", { textContent: verdict(day) }), `: ${meaning}`),
      ...day.reason ? fact("Reason", day.reason) : [],
      ...fact("Trades stored", number(day.trades)),
      ...fact("Ids missing", number(day.missing)),
      ...fact("Audited at", audited ? `${audited}${early(day) ? ", before the day was over" : ""}` : "never"),
      ...audited ? fact("Compared with", day.compared_with || "nothing") : [],
    ] : []);
  }
}
