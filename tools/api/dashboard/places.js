// The places of the chart: the times of its candles, and between them those at which nothing traded or trades are missing.

export const STEPS = { "1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400 };

// With more places, only some of a longer hole are drawn, so that what is drawn is bounded.
export const PLACES_MAX = 20_000;
const HOLE_PLACES = 60;

export const seconds = (time) => Date.parse(time) / 1000;

/** The empty places between two candles, at most `most`. */
export function between(time, next, step, most = PLACES_MAX) {
  const empty = Math.round((next - time) / step) - 1;
  const count = Math.min(Math.max(empty, 0), most);
  return Array.from({ length: count }, (_, place) => time + step * Math.ceil(((place + 1) * empty) / count));
}

/** The times of candles, in order, and of the empty places between them. */
export function withHoles(times, step) {
  const most = (times.at(-1) - times[0]) / step < PLACES_MAX ? PLACES_MAX : HOLE_PLACES;
  return times.flatMap((time, index) => {
    const next = times[index + 1];
    return next === undefined ? [time] : [time, ...between(time, next, step, most)];
  });
}

/** The first of `places`, in order, that a gap ({from, to, missing}) reaches into, and the one behind the last. */
function reach(places, gap, step) {
  let [low, high] = [0, places.length];
  // The first place that ends after the gap begins.
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((places[middle + 1] ?? places[middle] + step) > gap.from) high = middle;
    else low = middle + 1;
  }
  let end = low;
  while (end < places.length && places[end] <= gap.to) end += 1;
  return [low, end];
}

/** How many ids are missing at each of `places` at which any are. A gap that reaches into several counts in each: nobody
 * knows in which of them its trades were. */
export function missingAt(places, gaps, step) {
  const found = new Map();
  for (const gap of gaps) {
    const [low, end] = reach(places, gap, step);
    for (const time of places.slice(low, end)) found.set(time, (found.get(time) ?? 0) + gap.missing);
  }
  return found;
}

/** Where the number of a gap is written: in the middle of the places that it reaches into, no two closer than `apart`. */
export function labels(places, gaps, step, apart) {
  const found = [];
  let last = -Infinity;
  for (const gap of [...gaps].sort((one, other) => one.from - other.from)) {
    const [low, end] = reach(places, gap, step);
    const middle = (low + end - 1) >> 1;
    if (low === end || middle - last < apart) continue;
    last = middle;
    found.push({ time: places[middle], missing: gap.missing });
  }
  return found;
}
