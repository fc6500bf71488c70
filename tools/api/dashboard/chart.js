// The candle chart. It draws with numbers, which is precise enough for pixels; the texts beside it are the exact ones.

import { CandlestickSeries, CrosshairMode, HistogramSeries, createChart } from "/static/vendor/lightweight-charts.standalone.production.mjs";
import { change, exact } from "/static/amounts.js";
import { ask } from "/static/stream.js";

const HISTORY_BEFORE_BARS = 60;
const TABLE_BARS = 12;
const FIRST_BARS = 120;
const STEP_BARS = 10;
const HOLE_SLOTS_MAX = 60;
const GAPS_MAX = 1_000;
const STEPS = { "1m": 60, "1h": 3_600, "1d": 86_400 };

const seconds = (time) => Date.parse(time) / 1000;
const drawn = (bar) => ({
  time: seconds(bar.timestamp),
  open: Number(bar.open),
  high: Number(bar.high),
  low: Number(bar.low),
  close: Number(bar.close),
});

export class CandleChart {
  /** Draws into `container`; the exact prices of a candle go to `legend`, the last candles to `table`, what is missing in
   * the time that is drawn to `note`. */
  constructor(container, legend, table, note) {
    this.container = container;
    this.legend = legend;
    this.table = table;
    this.note = note;
    this.bars = new Map();
    this.gaps = [];
    this.slotCount = 0;
    this.showing = 0;
    this.chart = createChart(container, {
      autoSize: true,
      layout: { attributionLogo: true, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 1 },
      rightPriceScale: { borderVisible: false },
      handleScale: { axisPressedMouseMove: { price: false } },
    });
    // Behind the candles: a full-height bar wherever trades are missing.
    this.shade = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "gaps",
      priceLineVisible: false,
      lastValueVisible: false,
      autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 1 } }),
    });
    this.chart.priceScale("gaps").applyOptions({ scaleMargins: { top: 0, bottom: 0 }, visible: false });
    this.series = this.chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.chart.subscribeCrosshairMove((point) => this.tell(point.time));
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      container.dataset.placesAfter = range ? range.to - this.slotCount : "";
      if (range && range.from < HISTORY_BEFORE_BARS) this.loadBefore();
    });
    container.addEventListener("keydown", (event) => this.onKey(event));
    this.paint();
  }

  /** Takes the colours of the page. */
  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.chart.applyOptions({
      layout: { background: { color: "transparent" }, textColor: colour("--muted") },
      grid: { vertLines: { color: colour("--grid") }, horzLines: { color: colour("--grid") } },
      timeScale: { borderColor: colour("--line") },
    });
    const [up, down] = [colour("--up"), colour("--down")];
    this.series.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.shade.applyOptions({ color: `${colour("--down")}38` });
  }

  /** Shows another symbol or resolution from its last candles on. */
  async show(symbol, resolution) {
    const mine = (this.showing += 1);
    Object.assign(this, { symbol, resolution, complete: false, loading: true });
    const answer = await ask(`candles/${encodeURIComponent(symbol)}`, { resolution });
    if (mine !== this.showing) return;
    this.bars = new Map(answer.candles.map((bar) => [seconds(bar.timestamp), bar]));
    this.gaps = await this.gapsOf(symbol, resolution);
    if (mine !== this.showing) return;
    this.chart.timeScale().applyOptions({ timeVisible: resolution !== "1d" });
    this.draw();
    this.showEnd();
    this.loading = false;
  }

  /** Reads the last candles again, after something was stored that the stream has not told of. */
  async refresh() {
    const mine = this.showing;
    const { symbol, resolution } = this;
    if (!symbol) return;
    const answer = await ask(`candles/${encodeURIComponent(symbol)}`, { resolution });
    if (mine !== this.showing) return;
    for (const bar of answer.candles) this.bars.set(seconds(bar.timestamp), bar);
    this.gaps = await this.gapsOf(symbol, resolution);
    if (mine === this.showing) this.draw();
  }

  /** The open gaps in the time of the candles that are there; of very many the longest. */
  async gapsOf(symbol, resolution) {
    const times = [...this.bars.keys()];
    if (!times.length) return [];
    const start = new Date(Math.min(...times) * 1000).toISOString();
    const end = new Date((Math.max(...times) + STEPS[resolution]) * 1000).toISOString();
    const { gaps, missing } = await ask("gaps", { symbol, start, end, limit: GAPS_MAX });
    this.missing = missing;
    return gaps.map((gap) => ({ from: seconds(gap.timestamp_before), to: seconds(gap.timestamp_after) }));
  }

  /** Takes in candles that have grown. */
  update(bars) {
    for (const bar of bars) {
      const time = seconds(bar.timestamp);
      if (this.loading || time < this.newest) continue;
      const jumps = this.newest && time > this.newest + STEPS[this.resolution];
      if (time > this.newest) this.slotCount += 1;
      this.bars.set(time, bar);
      this.newest = time;
      // What lies between is drawn too, as nothing.
      if (jumps) this.draw();
      else this.series.update(drawn(bar));
      if (bar.missing) this.shade.update({ time, value: 1 });
    }
    this.describe();
  }

  async loadBefore() {
    if (this.loading || this.complete || !this.bars.size) return;
    const mine = this.showing;
    this.loading = true;
    try {
      const end = new Date(Math.min(...this.bars.keys()) * 1000).toISOString();
      const { symbol, resolution } = this;
      const { candles } = await ask(`candles/${encodeURIComponent(symbol)}`, { resolution, end });
      if (mine !== this.showing) return;
      this.complete = candles.length === 0;
      if (candles.length) {
        for (const bar of candles) this.bars.set(seconds(bar.timestamp), bar);
        this.gaps = await this.gapsOf(symbol, resolution);
        if (mine === this.showing) this.draw();
      }
    } catch {
      // The next move of the chart tries again; the banner says what is wrong.
    } finally {
      if (mine === this.showing) this.loading = false;
    }
  }

  draw() {
    const times = [...this.bars.keys()].sort((one, other) => one - other);
    this.newest = times.at(-1) ?? 0;
    const slots = this.slots(times);
    this.slotCount = slots.length;
    this.series.setData(slots.map((time) => (this.bars.has(time) ? drawn(this.bars.get(time)) : { time })));
    const shaded = slots.filter((time, index) => this.isMissing(time, slots[index + 1] ?? time + STEPS[this.resolution]));
    this.shade.setData(shaded.map((time) => ({ time, value: 1 })));
    Object.assign(this.container.dataset, { bars: times.length, slots: slots.length, shaded: shaded.length });
    this.note.hidden = !this.gaps.length;
    this.note.textContent = this.gaps.length
      ? `Shaded: ${this.missing.toLocaleString("en")} ${this.missing === 1 ? "trade is" : "trades are"} missing in this time; prices there are not known.`
      : "";
    this.describe();
  }

  /** The times of the candles and, where there is none, of empty places; of a long time without any only some. */
  slots(times) {
    const step = STEPS[this.resolution];
    return times.flatMap((time, index) => {
      const empty = index + 1 < times.length ? (times[index + 1] - time) / step - 1 : 0;
      const count = Math.min(empty, HOLE_SLOTS_MAX);
      const places = Array.from({ length: count }, (_, place) => time + step * Math.ceil(((place + 1) * empty) / count));
      return [time, ...places];
    });
  }

  /** Whether an open gap reaches into [from, to). */
  isMissing(from, to) {
    return this.gaps.some((gap) => gap.from < to && gap.to >= from);
  }

  showEnd() {
    const count = this.slotCount;
    this.chart.timeScale().setVisibleLogicalRange({ from: Math.max(count - FIRST_BARS, Math.min(-20, count - 40)), to: count + 4 });
  }

  /** Writes the exact prices of a candle, of the newest if no `time` is pointed at. */
  tell(time) {
    this.pointed = time;
    const bar = this.bars.get(time ?? this.newest);
    if (!bar) return this.legend.replaceChildren();
    const parts = [["O", bar.open], ["H", bar.high], ["L", bar.low], ["C", bar.close]];
    const { direction, percent } = change(bar.open, bar.close);
    const last = document.createElement("span");
    last.className = ["down", "", "up"][direction + 1];
    last.textContent = percent;
    this.legend.replaceChildren(
      ...parts.map(([name, text]) => {
        const part = document.createElement("span");
        part.append(`${name} `, exact(text));
        return part;
      }),
      last,
    );
  }

  /** For those who do not see it: a sentence, and a table of the last candles. */
  describe() {
    const bar = this.bars.get(this.newest);
    if (!bar) return;
    this.tell(this.pointed);
    const words = `${this.symbol}, candles of ${this.resolution}; the last one opened at ${bar.open}, is at ${bar.close}`;
    const missing = this.gaps.length ? `; ${this.missing} trades are missing in the time that is drawn` : "";
    this.container.setAttribute("aria-label", `${words}, low ${bar.low}, high ${bar.high}${missing}`);
    if (!this.table.closest("details").open) return;
    const times = [...this.bars.keys()].sort((one, other) => other - one).slice(0, TABLE_BARS);
    this.table.replaceChildren(...times.map((time) => row(this.bars.get(time))));
  }

  onKey(event) {
    const scale = this.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (!range) return;
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

function row(bar) {
  const line = document.createElement("tr");
  const time = document.createElement("th");
  time.scope = "row";
  time.textContent = bar.timestamp.slice(0, 16).replace("T", " ");
  const cells = [bar.open, bar.high, bar.low, bar.close].map((text) => exact(text));
  const missing = bar.missing ? bar.missing.toLocaleString("en") : "";
  line.append(time, ...[...cells, String(bar.trades), missing].map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  }));
  return line;
}
