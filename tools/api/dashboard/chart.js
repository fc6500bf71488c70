// The candle chart. It draws with numbers, which is precise enough for pixels; the texts beside it are the exact ones.

import {
  CandlestickSeries, CrosshairMode, HistogramSeries, createChart, createSeriesMarkers,
} from "/static/vendor/lightweight-charts.standalone.production.mjs";
import { learn, places as decimals, priceOf, quantityOf, shown, unit } from "/static/amounts.js";
import { onWheel } from "/static/gestures.js";
import { legend, missingWords, pointedAt, row, tick } from "/static/legend.js";
import { PLACES_MAX, STEPS, between, labels, missingAt, seconds, withHoles } from "/static/places.js";
import { ask } from "/static/stream.js";
import { ahead, zoneAt } from "/static/zone.js";

const HISTORY_BEFORE_BARS = 60;
const TABLE_BARS = 12;
const FIRST_BARS = 120;
const STEP_BARS = 10;
const GAPS_MAX = 1_000;
const LABELS_APART = 12;
const NARROW_PIXELS = 500;
// Behind the newest candle, so that the price of a mark on it is not cut off by the axis.
const EDGE_PIXELS = 56;
const EDGE_BARS = 4;
// A range that was asked for is never shown nearer than this, and has so much of its width on either side.
const RANGE_BARS = 60;
const RANGE_EDGE = 0.08;
// Of PLACES_MAX, which is as many as are kept; a coarser resolution shows a longer time.
const PLACES_DROPPED = 2_000;
// A tick has no more of a resolution: those before are asked for.
const TICK_CANDLES = 300;
// A history that is shorter is shown in seconds: of minutes there would be a few candles in a corner.
const YOUNG_S = 1_800;
// Between questions of which none was answered.
const AGAIN_MS_MIN = 500;
const AGAIN_MS_MAX = 10_000;

const candlesOf = (symbol, parameters) => ask(`candles/${encodeURIComponent(symbol)}`, parameters);

/** The resolution that shows a symbol best when none was chosen: seconds while its history is short. */
export async function firstResolution(symbol) {
  const { candles } = await candlesOf(symbol, { resolution: "1m" });
  const isYoung = candles.length && seconds(candles.at(-1).timestamp) - seconds(candles[0].timestamp) < YOUNG_S;
  return isYoung ? "1s" : "1m";
}

export class CandleChart {
  /** Draws into `container`; the exact prices of a candle go to `legend`, the last candles to `table`, what is missing in
   * the time that is drawn to `note`, and that there is no answer to `wrong`. */
  constructor(container, { legend: legendElement, table, note, wrong }) {
    Object.assign(this, { container, legend: legendElement, table, note, wrong, asked: null, showing: 0, shift: 0, waiting: null });
    this.empty();
    this.chart = createChart(container, {
      autoSize: true,
      layout: { attributionLogo: true, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      timeScale: {
        timeVisible: true, rightOffset: 4, minBarSpacing: 0.5,
        tickMarkFormatter: (time, type) => tick(time - this.shift, type, this.resolution),
      },
      localization: { timeFormatter: (time) => pointedAt(time - this.shift, this.resolution) },
      rightPriceScale: { borderVisible: false },
      // A wheel or a swipe up or down is the page's: see gestures.js.
      handleScroll: { mouseWheel: false, vertTouchDrag: false },
      handleScale: { mouseWheel: false, axisPressedMouseMove: { price: false } },
    });
    this.addSeries();
    this.corner = document.createElement("span");
    this.corner.className = "zone";
    container.append(this.corner);
    onWheel(container, this.chart);
    this.chart.subscribeCrosshairMove(({ time }) => {
      this.pointed = time === undefined ? undefined : time - this.shift;
      this.tell();
    });
    this.chart.subscribeClick((point) => point.time !== undefined && this.choose(point.time - this.shift));
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      container.dataset.placesAfter = range ? range.to - this.places.length : "";
      container.dataset.placesWide = range ? range.to - range.from : "";
      this.point();
      if (range && range.from < HISTORY_BEFORE_BARS) this.loadBefore();
    });
    container.addEventListener("keydown", (event) => this.onKey(event));
    container.addEventListener("pointermove", (event) => {
      // Some browsers say so too when only what is under the pointer has moved.
      if (this.keyed === undefined || !(event.movementX || event.movementY)) return;
      this.letGo();
      this.tell();
    }, { capture: true });
    this.paint();
  }

  /** No candles, and nothing is pointed at. */
  empty() {
    Object.assign(this, { bars: new Map(), places: [], gaps: [], lacking: new Map(), newest: 0, missing: 0 });
    // The places that the pointer and the keyboard point at; that of the keyboard goes first, and stays.
    Object.assign(this, { pointed: undefined, keyed: undefined });
  }

  addSeries() {
    const quiet = { priceLineVisible: false, lastValueVisible: false };
    const hidden = (id, top) => this.chart.priceScale(id).applyOptions({ scaleMargins: { top, bottom: 0 }, visible: false });
    // Behind the candles: a full-height bar wherever trades are missing.
    const whole = () => ({ priceRange: { minValue: 0, maxValue: 1 } });
    this.shade = this.chart.addSeries(HistogramSeries, { priceScaleId: "gaps", autoscaleInfoProvider: whole, ...quiet });
    hidden("gaps", 0);
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", ...quiet });
    hidden("volume", 0.82);
    this.series = this.chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.chart.priceScale("right").applyOptions({ scaleMargins: { top: 0.12, bottom: 0.24 } });
    this.marks = createSeriesMarkers(this.series, []);
    this.counts = createSeriesMarkers(this.shade, []);
  }

  /** Takes the colours of the page. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const [up, down, still] = [colour("--up"), colour("--down"), colour("--muted")];
    Object.assign(this, { colours: { up, down, still, text: colour("--text") } });
    this.chart.applyOptions({
      layout: { background: { color: "transparent" }, textColor: still },
      grid: { vertLines: { color: colour("--grid") }, horzLines: { color: colour("--grid") } },
      timeScale: { borderColor: colour("--line") },
    });
    // A label of the last price in red would be hard to read on dark.
    this.series.applyOptions({ priceLineColor: still, upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.shade.applyOptions({ color: `${down}38` });
    if (this.places.length) this.draw();
  }

  /** Shows another symbol or resolution from its last candles on, and nothing until they are there. Returns a promise of
   * whether they are: not if something else was chosen meanwhile. */
  show(symbol, resolution) {
    this.showing += 1;
    // What grows meanwhile is taken in afterwards.
    Object.assign(this, { symbol, resolution, waiting: new Map(), stale: true });
    this.wrong.hidden = true;
    if (this.keyed !== undefined) this.letGo();
    this.empty();
    this.draw();
    return this.readEnd();
  }

  /** Reads the last candles again, after something was stored that the stream has not told of. */
  async refresh() {
    if (!this.symbol) return;
    // An answer that is on its way may be from before that.
    this.stale = true;
    this.wake?.();
    if (this.reading !== this.showing) await this.readEnd();
  }

  /** Reads the last candles until there is an answer that is not stale. Returns a promise of whether they are drawn. */
  async readEnd() {
    const mine = this.showing;
    this.reading = mine;
    for (let wait = AGAIN_MS_MIN; this.stale; wait = Math.min(wait * 2, AGAIN_MS_MAX)) {
      this.stale = false;
      const answer = await this.read().catch((error) => ({ error }));
      if (mine !== this.showing) return false;
      this.wrong.hidden = !answer.error;
      if (!answer.error) {
        this.renew(answer);
        continue;
      }
      this.stale = true;
      this.wrong.textContent = `The candles of ${this.symbol} cannot be read now (${answer.error.message}). Trying again.`;
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, wait);
      });
      if (mine !== this.showing) return false;
    }
    this.reading = null;
    return true;
  }

  /** The last candles, or those before an `end`, as far back as is in sight, and what is missing from then on. */
  async read(before = {}) {
    const { symbol, resolution, showing } = this;
    let { candles } = await candlesOf(symbol, { resolution, ...before });
    let isAll = false;
    // One may go further back while an answer is on its way.
    const isShort = () => !isAll && showing === this.showing && candles.length < PLACES_MAX
      && seconds(candles[0]?.timestamp) > (this.away()?.time ?? Infinity);
    let missing;
    do {
      while (isShort()) {
        const earlier = await candlesOf(symbol, { resolution, end: candles[0].timestamp });
        isAll = !earlier.candles.length;
        candles = [...earlier.candles, ...candles];
      }
      missing = await this.gapsFrom(candles);
    } while (isShort());
    return { candles, ...missing };
  }

  /** Takes in what was read. What is older goes: it may have changed too, and is read again when one goes back to it. */
  renew({ candles, gaps, missing }) {
    const first = candles.length ? seconds(candles[0].timestamp) : 0;
    const [isFirst, away] = [!this.places.length, this.away()];
    this.bars = new Map([...this.bars].filter(([time]) => time >= first));
    Object.assign(this, { gaps, missing, complete: false });
    this.take(candles);
    this.draw();
    if (isFirst) this.showEnd();
    else if (away) {
      const moved = Math.max(0, this.places.findIndex((time) => time >= away.time)) - away.place;
      this.chart.timeScale().setVisibleLogicalRange({ from: away.from + moved, to: away.to + moved });
    }
    if (!this.waiting) return;
    const grown = [...this.waiting.values()];
    this.waiting = null;
    this.update(grown);
  }

  /** What is in sight, and the first place and time of it; null if the end is in sight, which the chart follows. */
  away() {
    const range = this.chart.timeScale().getVisibleLogicalRange();
    if (!range || range.to >= this.places.length - 1) return null;
    const place = Math.max(0, Math.ceil(range.from));
    return { ...range, place, time: this.places[place] };
  }

  /** Brings a range ({start, end}, texts) into sight. Returns a promise of whether the chart reaches back so far, or of
   * nothing while there are no candles or no answer, or once something else is shown. */
  async reveal(range) {
    if (this.waiting || !this.places.length) return undefined;
    this.revealed = range;
    const [step, mine] = [STEPS[this.resolution], this.showing];
    const [start, end] = [range.start, range.end].map((time) => Math.floor(seconds(time) / step) * step);
    if ((this.newest - start) / step > PLACES_MAX) return false;
    for (let first = Infinity; start < this.places[0] && !this.complete;) {
      // There was no answer: the next move of the chart asks again, and so may the reader.
      if (this.places[0] === first) return undefined;
      first = this.places[0];
      await this.loadBefore();
      if (mine !== this.showing || this.revealed !== range) return undefined;
    }
    this.look(start, end);
    return true;
  }

  /** Moves as little as shows the places from `start` to `end`. */
  look(start, end) {
    const at = (time) => Math.max(0, this.places.findLastIndex((place) => place <= time));
    const [first, last] = [at(start), at(end)];
    const scale = this.chart.timeScale();
    const seen = scale.getVisibleLogicalRange();
    if (seen && seen.from <= first && last <= seen.to) return;
    const edge = Math.max((last - first) * RANGE_EDGE, (RANGE_BARS - (last - first)) / 2, EDGE_BARS);
    scale.setVisibleLogicalRange({ from: first - edge, to: last + edge });
  }

  take(bars) {
    for (const bar of bars) {
      const time = seconds(bar.timestamp);
      // A candle's trades only grow: one with fewer was read before the one that is here.
      if (!(this.bars.get(time)?.trades > bar.trades)) this.bars.set(time, bar);
    }
    learn(bars.flatMap((bar) => [bar.high, bar.low]), priceOf(this.symbol));
    learn(bars.map((bar) => bar.volume), quantityOf(this.symbol));
  }

  /** The open gaps from the first of `candles` to the newest that is here; of very many the longest. */
  async gapsFrom(candles) {
    if (!candles.length) return { gaps: [], missing: 0 };
    const bound = (time) => new Date(time * 1000).toISOString();
    const [start, last] = [candles[0], candles.at(-1)].map(({ timestamp }) => seconds(timestamp));
    const range = { start: bound(start), end: bound(Math.max(last, this.newest) + STEPS[this.resolution]) };
    const { gaps, missing } = await ask("gaps", { symbol: this.symbol, ...range, limit: GAPS_MAX });
    const ends = (gap) => ({ from: seconds(gap.timestamp_before), to: seconds(gap.timestamp_after) });
    return { gaps: gaps.map((gap) => ({ ...ends(gap), missing: gap.missing })), missing };
  }

  /** Takes in candles that have grown. */
  update(bars) {
    if (this.waiting) {
      for (const bar of bars.slice(-TICK_CANDLES)) this.waiting.set(bar.timestamp, bar);
      // An answer has those before.
      for (const time of [...this.waiting.keys()].slice(0, -TICK_CANDLES)) this.waiting.delete(time);
      return;
    }
    // There were more than a tick may have.
    if (bars.length >= TICK_CANDLES) this.refresh();
    // Older ones are read when one goes back to them.
    const known = bars.filter((bar) => !(seconds(bar.timestamp) < this.places[0]));
    this.take(known);
    for (const bar of known) {
      const time = seconds(bar.timestamp);
      if (time > this.newest) this.append(time);
      this.series.update(this.candle(time), time < this.newest);
      this.volume.update(this.column(time), time < this.newest);
      if (bar.missing) {
        this.lacking.set(time, bar.missing);
        this.shade.update({ time: time + this.shift, value: 1 }, time < this.newest);
      }
    }
    if (this.places.length > PLACES_MAX + PLACES_DROPPED) this.drop();
    this.describe();
  }

  /** A new place at the end, behind empty ones for the time in which nothing traded. */
  append(time) {
    const empty = this.newest ? between(this.newest, time, STEPS[this.resolution]) : [];
    for (const one of empty) for (const series of [this.series, this.volume]) series.update({ time: one + this.shift });
    this.places.push(...empty, time);
    this.newest = time;
  }

  /** Forgets the oldest candles. */
  drop() {
    for (const time of this.places.slice(0, PLACES_DROPPED)) this.bars.delete(time);
    this.draw();
  }

  /** Reads what is before the first candle; while that goes on, it is the same promise. */
  loadBefore() {
    if (this.before?.of !== this.showing) {
      const before = { of: this.showing };
      this.before = before;
      before.read = this.readBefore().finally(() => { if (this.before === before) this.before = null; });
    }
    return this.before.read;
  }

  async readBefore() {
    if (this.waiting || this.complete || !this.places.length || this.places.length >= PLACES_MAX) return;
    const { showing: mine, places: [first] } = this;
    // Without an answer, the next move of the chart asks again; the banner says what is wrong.
    const answer = await this.read({ end: new Date(first * 1000).toISOString() }).catch(() => null);
    // What is shown may have been read again meanwhile, from another time on.
    if (!answer || mine !== this.showing || first !== this.places[0]) return;
    this.complete = answer.candles.length === 0;
    if (this.complete) return;
    Object.assign(this, { gaps: answer.gaps, missing: answer.missing });
    this.take(answer.candles);
    this.draw();
  }

  draw() {
    const step = STEPS[this.resolution];
    const times = [...this.bars.keys()].sort((one, other) => one - other);
    this.newest = times.at(-1) ?? 0;
    this.shift = ahead(this.newest, this.resolution);
    this.places = withHoles(times, step);
    this.lacking = missingAt(this.places, this.gaps, step);
    const minMove = 10 ** -decimals(priceOf(this.symbol));
    const formatter = (price) => shown(price.toFixed(decimals(priceOf(this.symbol))), priceOf(this.symbol));
    this.series.applyOptions({ priceFormat: { type: "custom", minMove, formatter } });
    this.series.setData(this.places.map((time) => this.candle(time)));
    this.volume.setData(this.places.map((time) => this.column(time)));
    this.shade.setData([...this.lacking.keys()].sort((a, b) => a - b).map((time) => ({ time: time + this.shift, value: 1 })));
    this.counts.setMarkers(labels(this.places, this.gaps, step, LABELS_APART).map(({ time, missing }) => ({
      time: time + this.shift, position: "atPriceBottom", price: 1, shape: "square", size: 0, color: this.colours.text,
      text: `${missing.toLocaleString("en")} missing`,
    })));
    this.drawMarks();
    this.corner.textContent = this.newest ? zoneAt(this.newest, this.resolution) : "";
    const counts = { bars: times.length, slots: this.places.length, shaded: this.lacking.size };
    Object.assign(this.container.dataset, counts);
    this.note.hidden = !this.gaps.length;
    this.note.textContent = this.gaps.length
      ? `Shaded: ${this.missing.toLocaleString("en")} ${this.missing === 1 ? "trade is" : "trades are"} missing in this time; prices there are not known.`
      : "";
    this.describe();
  }

  /** What is drawn at a place: a candle, green or red if its price moved, or nothing. */
  candle(time) {
    const bar = this.bars.get(time);
    if (!bar) return { time: time + this.shift };
    const { still } = this.colours;
    return {
      time: time + this.shift,
      open: Number(bar.open), high: Number(bar.high), low: Number(bar.low), close: Number(bar.close),
      ...bar.open === bar.close ? { color: still, wickColor: still } : {},
    };
  }

  column(time) {
    const bar = this.bars.get(time);
    if (!bar) return { time: time + this.shift };
    const { up, down, still } = this.colours;
    const moved = Number(bar.close) - Number(bar.open);
    return { time: time + this.shift, value: Number(bar.volume), color: `${moved > 0 ? up : moved < 0 ? down : still}80` };
  }

  /** Marks the low and the high of a range that was asked for, on the candles that they are in. */
  mark(answer) {
    this.asked = answer;
    if (this.places.length) this.drawMarks();
  }

  drawMarks() {
    const step = STEPS[this.resolution];
    const isHere = this.asked?.symbol === this.symbol;
    const marks = ["low", "high"].filter((name) => isHere && this.asked[name]).map((name) => {
      const { timestamp, price } = this.asked[name];
      const time = Math.floor(seconds(timestamp) / step) * step;
      // At the edge of a narrow chart a price would be cut off.
      const text = this.container.clientWidth < NARROW_PIXELS ? name : `${name} ${shown(price, priceOf(this.symbol))}`;
      const look = name === "low" ? { position: "belowBar", shape: "arrowUp" } : { position: "aboveBar", shape: "arrowDown" };
      return { time, text, color: this.colours.text, ...look };
    }).filter(({ time }) => this.bars.has(time)).sort((one, other) => one.time - other.time);
    this.marks.setMarkers(marks.map((one) => ({ ...one, time: one.time + this.shift })));
    this.container.dataset.marks = marks.map(({ text }) => text).join("; ");
  }

  showEnd() {
    const count = this.places.length;
    const width = this.container.clientWidth;
    const edge = width < NARROW_PIXELS ? EDGE_BARS : Math.max(EDGE_BARS, Math.ceil((FIRST_BARS * EDGE_PIXELS) / width));
    this.chart.timeScale().setVisibleLogicalRange({ from: Math.max(count - FIRST_BARS, Math.min(-20, count - 40)), to: count + edge });
  }

  /** Puts the crosshair where the keyboard points at: the library keeps it at a pixel, and the places move. */
  point() {
    if (this.keyed === undefined) return;
    const range = this.chart.timeScale().getVisibleLogicalRange();
    const place = this.places.indexOf(this.keyed);
    if (!range || place < range.from || place > range.to) this.chart.clearCrosshairPosition();
    else this.chart.setCrosshairPosition(Number(this.bars.get(this.keyed)?.close ?? 0), this.keyed + this.shift, this.series);
  }

  /** Points at nothing. */
  letGo() {
    Object.assign(this, { pointed: undefined, keyed: undefined });
    this.chart.clearCrosshairPosition();
  }

  /** Writes the exact prices of the place that is pointed at, or of the newest candle. */
  tell() {
    const place = this.keyed ?? this.pointed ?? this.newest;
    if (!place) return this.legend.replaceChildren();
    const bar = this.bars.get(place);
    this.legend.replaceChildren(...legend(this, place, bar, this.lacking.get(place) ?? bar?.missing ?? 0));
  }

  /** Tells who listens that a place was clicked: an event `candle` with its time, {start, end}. */
  choose(time) {
    const text = (at) => new Date(at * 1000).toISOString();
    const detail = { start: text(time), end: text(time + STEPS[this.resolution]) };
    this.container.dispatchEvent(new CustomEvent("candle", { detail }));
  }

  /** For those who do not see it: a sentence, and a table of the last candles. */
  describe() {
    const bar = this.bars.get(this.newest);
    // It may have gone with the oldest.
    if (this.keyed < this.places[0]) this.letGo();
    this.point();
    this.tell();
    if (!bar) {
      this.container.setAttribute("aria-label", `${this.symbol}, candles of ${this.resolution}; none yet`);
      this.table.replaceChildren();
      return;
    }
    const say = (text) => `${shown(text, priceOf(this.symbol))} ${unit(priceOf(this.symbol))}`.trim();
    const words = `${this.symbol}, candles of ${this.resolution}; the last one opened at ${say(bar.open)}, is at ${say(bar.close)}`;
    const missing = this.gaps.length ? `; ${this.missing} trades are missing in the time that is drawn` : "";
    const last = this.lacking.get(this.newest) ? `; ${missingWords(this.lacking.get(this.newest))}` : "";
    this.container.setAttribute("aria-label", `${words}, low ${say(bar.low)}, high ${say(bar.high)}${last}${missing}`);
    if (!this.table.closest("details").open) return;
    const times = this.places.slice(-TABLE_BARS * STEP_BARS).filter((one) => this.bars.has(one)).slice(-TABLE_BARS);
    this.table.parentElement.querySelector("th").textContent = zoneAt(this.newest, this.resolution);
    this.table.replaceChildren(...times.reverse().map((time) => row(this, time, this.bars.get(time))));
  }

  /** What a mouse does, by keyboard: Shift + ← and → point at a candle, Enter chooses it, Escape lets go. Returns whether
   * `event` was one of these. */
  onPointer(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const pointed = this.keyed ?? this.pointed;
    if (event.shiftKey && step) {
      // At first at the last one in sight.
      const seen = Math.floor(this.chart.timeScale().getVisibleLogicalRange().to);
      const place = pointed === undefined ? seen : this.places.indexOf(pointed) + step;
      this.keyed = this.places[Math.max(0, Math.min(this.places.length - 1, place))];
      this.look(this.keyed, this.keyed);
      this.point();
      this.tell();
    } else if (event.key === "Enter" && pointed !== undefined) this.choose(pointed);
    else if (event.key === "Escape") {
      this.letGo();
      this.tell();
    } else return false;
    return true;
  }

  onKey(event) {
    const scale = this.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (!range || !this.places.length) return;
    if (this.onPointer(event)) return event.preventDefault();
    const width = range.to - range.from;
    const moves = {
      ArrowLeft: [-STEP_BARS, -STEP_BARS],
      ArrowRight: [STEP_BARS, STEP_BARS],
      "+": [width / 4, 0],
      "-": [-width / 4, 0],
    };
    if (event.key === "End") this.showEnd();
    else if (moves[event.key]) {
      const [from, to] = moves[event.key];
      scale.setVisibleLogicalRange({ from: range.from + from, to: range.to + to });
    } else return;
    event.preventDefault();
  }
}
