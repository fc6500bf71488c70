// The API over HTTP: questions, the login, and the stream of events, which comes back by itself with the id of the last
// event, so that nothing is lost in between. Who has logged in has a cookie, which no script can read.

const BACK_MS_MIN = 500;
const BACK_MS_MAX = 5_000;
// The API says how it is each second.
const SILENT_MS_MAX = 4_000;
const ANSWER_MS_MAX = 60_000;

/** An answer that is no success: `status` is that of HTTP (0: no answer at all), the message says why. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForToken = null;

/** Says how to ask the user for the token: a function that returns a promise of its text. It is given what was wrong with
 * the one before, or an empty text. */
export function onToken(ask) {
  askForToken = ask;
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    throw new Refusal(0, "the API does not answer");
  }
}

async function open(path, options = {}) {
  for (;;) {
    // What has not changed is not sent again (ETag).
    const response = await send(path, { cache: "no-cache", signal: AbortSignal.timeout(ANSWER_MS_MAX), ...options });
    if (response.status !== 401) return response;
    // Once for all that wait for it.
    loggingIn ??= logIn().finally(() => { loggingIn = null; });
    await loggingIn;
  }
}

let loggingIn = null;

async function logIn() {
  for (let wrong = ""; ;) {
    const body = JSON.stringify({ token: await askForToken(wrong) });
    const response = await send("/api/login", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (response.ok) return;
    wrong = await why(response);
  }
}

/** Why an answer is a refusal (problem details, RFC 9457). */
async function why(response) {
  const body = await response.json().catch(() => ({}));
  return body.detail ?? `HTTP ${response.status}`;
}

/** The JSON of an answer. Throws Refusal. */
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  const response = await open(`/api/${path}${query.size ? `?${query}` : ""}`);
  if (response.ok) return response.json();
  throw new Refusal(response.status, await why(response));
}

/** Listens for ever. `on` has a function per event name, and `up` and `down` for the connection itself. Returns a function
 * that takes other symbols to listen to from now on. */
export function listen(symbols, on) {
  const wanted = { symbols, abort: new AbortController(), changed: false };
  listenTo(wanted, on);
  return (others) => {
    Object.assign(wanted, { symbols: others, changed: true });
    wanted.abort.abort();
  };
}

async function listenTo(wanted, on) {
  let lastId = null;
  let wait = BACK_MS_MIN;
  for (;;) {
    wanted.abort = new AbortController();
    wanted.changed = false;
    try {
      await readOnce(wanted, lastId, (event) => {
        lastId = event.id ?? lastId;
        wait = BACK_MS_MIN;
        on.up();
        on[event.name]?.(JSON.parse(event.data));
      });
      if (!wanted.changed) on.down(new Refusal(0, "the stream has ended"));
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof TypeError) console.error(error);
      // The reader's own error does not say why it was given up.
      if (!wanted.changed) on.down(wanted.abort.signal.reason ?? error);
    }
    // What the reader chose is not waited for.
    if (wanted.changed) continue;
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(wait * 2, BACK_MS_MAX);
  }
}

async function readOnce({ symbols, abort }, lastId, deliver) {
  const giveUp = () => abort.abort(new Refusal(0, `nothing has come for ${SILENT_MS_MAX / 1000} s`));
  let silence = setTimeout(giveUp, SILENT_MS_MAX);
  try {
    const query = new URLSearchParams({ symbols: symbols.join(","), mode: "ticks" });
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await open(`/api/stream?${query}`, { headers, signal: abort.signal, cache: "no-store" });
    if (!response.ok) throw new Refusal(response.status, await why(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(giveUp, SILENT_MS_MAX);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.map(parse).filter((event) => event.data).forEach(deliver);
    }
  } finally {
    clearTimeout(silence);
  }
}

function parse(block) {
  const event = { name: "message", data: "", id: null };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    const value = line.slice(colon + 2);
    if (line.startsWith("event: ")) event.name = value;
    else if (line.startsWith("data: ")) event.data += value;
    else if (line.startsWith("id: ")) event.id = value;
  }
  return event;
}
