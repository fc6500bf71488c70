// Exact decimals. The API's texts are compared and subtracted as whole numbers of 10^-8, never as floating-point numbers.
// They are shown with as many decimals as the symbol trades in and with separators; the text as it came is on hover, in
// `data-amount`, and in what is copied.

const DECIMALS = 8;
const PRICE_DECIMALS = 2;
const KINDS_MAX = 200;
const QUOTES = [
  "FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USDP", "USD1", "BIDR", "IDRT", "DOGE", "BTC", "ETH", "BNB", "TRX", "XRP", "SOL",
  "DAI", "EUR", "TRY", "BRL", "JPY", "GBP", "AUD", "ARS", "MXN", "COP", "CZK", "PLN", "RON", "UAH", "ZAR", "IDR", "NGN", "RUB",
];

// The most decimals that were seen of each kind of amount.
const decimals = new Map();

/** What an amount is of: the price, or the quantity, of a symbol. `exact` and the others take it as `kind`. */
export const priceOf = (symbol) => `${symbol} price`;
export const quantityOf = (symbol) => `${symbol} quantity`;

/** The asset that an amount is in, such as USDT or BTC; an empty text: it cannot be told from the symbol. */
export function unit(kind) {
  const [symbol, what] = kind.split(" ");
  const quote = QUOTES.find((name) => symbol.length > name.length && symbol.endsWith(name));
  if (!quote) return "";
  return what === "price" ? quote : symbol.slice(0, -quote.length);
}

/** How many decimals are shown of a kind, after one with `digits` of them was seen. */
function learned(kind, digits) {
  if (!kind) return Math.max(digits, PRICE_DECIMALS);
  const most = Math.max(digits, decimals.get(kind) ?? (kind.endsWith(" price") ? PRICE_DECIMALS : 0));
  if (decimals.size >= KINDS_MAX && !decimals.has(kind)) decimals.delete(decimals.keys().next().value);
  decimals.set(kind, most);
  return most;
}

/** An amount for people, such as 97,123.45 for "97123.45000000". No digit but zeros at the end is left out. */
export function shown(text, kind) {
  const [, sign, whole, rest = ""] = /^([+−-]?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return text;
  const digits = rest.replace(/0+$/, "");
  const places = learned(kind, digits.length);
  return `${sign}${whole.replace(/\B(?=(\d{3})+$)/g, ",")}${places ? `.${digits.padEnd(places, "0")}` : ""}`;
}

/** Takes note of amounts before any of them is shown, so that all have the same number of decimals. */
export const learn = (texts, kind) => texts.forEach((text) => shown(text, kind));

/** How many decimals the amounts of a kind have. */
export const places = (kind) => learned(kind, 0);

/** The whole number of 10^-8 that an amount such as "97123.45000000" is. */
export const units = (text) => BigInt(text.replace(".", ""));

/** The amount of so many 10^-8, in eight decimals, with a sign if `signed`. */
export function amount(value, signed = false) {
  const sign = value < 0n ? "−" : signed && value > 0n ? "+" : "";
  const digits = (value < 0n ? -value : value).toString().padStart(DECIMALS + 1, "0");
  return `${sign}${digits.slice(0, -DECIMALS)}.${digits.slice(-DECIMALS)}`;
}

/** An element with an amount, which may be of a `kind`. */
export function exact(text, className = "", kind = undefined) {
  const element = document.createElement("span");
  element.className = `amount ${className}`.trim();
  fill(element, text, kind);
  return element;
}

/** Writes an amount into an element as `exact` does. */
export function fill(element, text, kind = undefined) {
  const words = shown(text, kind);
  if (element.dataset.amount === text && element.textContent === words) return;
  element.dataset.amount = text;
  element.title = text;
  element.textContent = words;
}

/** The unit of a kind as an element, which is empty if it is not known. */
export function unitElement(kind) {
  const element = document.createElement("span");
  element.className = "unit";
  element.textContent = unit(kind);
  return element;
}

/** The change from one amount to another: -1, 0 or 1, the difference, the percentage in two decimals, and the class of
 * its colour, which is none for what is shown as zero. */
export function change(before, after) {
  const [from, to] = [units(before), units(after)];
  const difference = to - from;
  const direction = difference > 0n ? 1 : difference < 0n ? -1 : 0;
  // Hundredths of a percent, rounded half away from zero: this is the one number on the page that is rounded.
  const size = difference < 0n ? -difference : difference;
  const hundredths = from === 0n ? 0n : (size * 100_000n / from + 5n) / 10n;
  const sign = hundredths === 0n ? "" : direction > 0 ? "+" : "−";
  const percent = `${sign}${hundredths / 100n}.${(hundredths % 100n).toString().padStart(2, "0")} %`;
  const tone = hundredths === 0n ? "" : direction > 0 ? "up" : "down";
  return { direction, difference: amount(difference, true), percent, tone };
}

/** The text of a selection, with amounts as they came and not as they are shown. */
function copied(selection) {
  const text = selection.toString();
  let [found, at] = ["", 0];
  for (const element of document.querySelectorAll("[data-amount]")) {
    if (!selection.containsNode(element, true)) continue;
    const place = text.indexOf(element.textContent, at);
    // Of one that is selected in part, that part is copied.
    if (place < 0) continue;
    found += text.slice(at, place) + element.dataset.amount;
    at = place + element.textContent.length;
  }
  return found + text.slice(at);
}

/** From now on, what is copied from the page has the exact amounts. */
export function copyExactly() {
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || event.target.closest?.("input, textarea")) return;
    event.clipboardData.setData("text/plain", copied(selection));
    event.preventDefault();
  });
}
