// The API over HTTP: questions, and the stream of events. EventSource cannot show a token, so the stream is read with
// fetch; it comes back by itself, with the id of the last event, so that nothing is lost in between.

const BACK_MS_MIN = 500;
const BACK_MS_MAX = 5_000;
const SILENT_MS_MAX = 15_000;
const TOKEN = "api-token";

/** An answer that is no success: `status` is that of HTTP (0: no answer at all), the message says why. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForToken = null;

/** Says how to ask the user for the token: a function that returns a promise of its text. */
export function onToken(ask) {
  askForToken = ask;
}

async function open(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      throw new Refusal(0, "the API does not answer");
    }
    if (response.status !== 401) return response;
    sessionStorage.setItem(TOKEN, await askForToken());
  }
}

/** The JSON of an answer. Throws Refusal. */
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  const response = await open(`/api/${path}${query.size ? `?${query}` : ""}`);
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const detail = Array.isArray(body.detail)
    ? body.detail.map((one) => `${one.loc.at(-1)}: ${one.msg}`).join("; ")
    : body.detail;
  throw new Refusal(response.status, detail ?? `HTTP ${response.status}`);
}

/** Listens for ever. `on` has a function per event name, and `up` and `down` for the connection itself. */
export async function listen(symbols, on) {
  let lastId = null;
  let wait = BACK_MS_MIN;
  for (;;) {
    try {
      await readOnce(symbols, lastId, (event) => {
        lastId = event.id ?? lastId;
        wait = BACK_MS_MIN;
        on.up();
        on[event.name]?.(JSON.parse(event.data));
      });
      on.down(new Refusal(0, "the stream has ended"));
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof TypeError) console.error(error);
      on.down(error);
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.75 + Math.random() / 2)));
    wait = Math.min(wait * 2, BACK_MS_MAX);
  }
}

async function readOnce(symbols, lastId, deliver) {
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENT_MS_MAX);
  try {
    const query = new URLSearchParams({ symbols: symbols.join(","), mode: "ticks" });
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const response = await open(`/api/stream?${query}`, { headers, signal: abort.signal });
    if (!response.ok) throw new Refusal(response.status, `HTTP ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENT_MS_MAX);
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
