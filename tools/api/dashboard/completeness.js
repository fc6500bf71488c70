// Completeness: how old the newest trades are, how many ids are missing, and whether that is known at all.

import { clock, fact } from "/static/forms.js";
import { $, age, cells, serverNow, silence, state, trouble } from "/static/page.js";
import { ask } from "/static/stream.js";

const GAPS_SHOWN = 20;
// What the banner says when trades may be missed now.
const BLIND = new Set(["capture-stopped", "capture-frozen", "no-trades"]);

let missingBefore = null;
// Whether the gaps could not be listed since.
let isUnlisted = false;
// How often what is missing has been listed anew: only the last list that was asked for is shown.
let turn = 0;
// What was last known of what is missing, and when; null: nothing yet.
let known = null;

/** Takes in a status; calls `filled` at the first one and when what is missing has changed since the last one. */
export async function onMissing({ symbols, time, missing, open_gaps: gaps }, filled) {
  const stale = Object.entries(symbols).filter(([, one]) => one.stale).map(([symbol]) => symbol);
  known = { gaps, missing, stale, time };
  showVerdict();
  const key = `${gaps}/${missing}`;
  if (key === missingBefore && !isUnlisted) return;
  // What was filled since has changed candles that were drawn before; so may what was filled before the first status.
  if (key !== missingBefore) filled();
  [missingBefore, isUnlisted] = [key, false];
  const mine = turn += 1;
  $("gaps").hidden = gaps === 0;
  if (gaps === 0) return;
  try {
    const { gaps: found } = await ask("gaps", { limit: GAPS_SHOWN });
    if (mine === turn) drawGaps(found);
  } catch {
    if (mine === turn) isUnlisted = true;
  }
}

/** Whether all is here: it is only known while the API, the database and the capture are alive. */
function verdict() {
  const away = silence();
  if (known === null) return ["unknown", away ? `Not known: ${away}.` : "Not known yet."];
  const { gaps, missing, stale, time } = known;
  const count = `${missing.toLocaleString("en")} ${missing === 1 ? "trade is" : "trades are"} missing, in ${gaps} open ${gaps === 1 ? "gap" : "gaps"}`;
  if (away) {
    const then = gaps === 0 ? "no trade was known to be missing" : count.replace(" is ", " was ").replace(" are ", " were ");
    return ["unknown", `Not known now: ${away}. At ${clock(time, true).slice(0, 19)}, ${then}.`];
  }
  const none = stale.length ? `of ${stale.join(", ")} comes any more` : BLIND.has(trouble.kind) ? "comes any more" : null;
  const since = none ? ` What has traded since is not known: no trade ${none}.` : "";
  if (gaps) return ["false", `${count}.${since}`];
  if (since) return ["unknown", `Up to the newest trade none is missing.${since}`];
  return ["true", "Accounted for: every trade from the first stored to the last is here."];
}

/** Says it in a sentence. */
export function showVerdict() {
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

/** Shows how old the newest trade of each symbol is. */
export function showFreshness() {
  const now = serverNow();
  $("freshness").replaceChildren(...state.symbols.flatMap((symbol) => {
    const newest = state.newest.get(symbol);
    return fact(symbol, newest === undefined ? "no trade yet" : `newest trade ${age(now - newest)} ago`);
  }));
}
