// Exact decimals. The API's texts have eight decimals; they are compared and subtracted as whole numbers of 10^-8,
// never as floating-point numbers, and shown digit by digit as they came.

const DECIMALS = 8;
const SHOWN_DECIMALS = 2;

/** The whole number of 10^-8 that an amount such as "97123.45000000" is. */
export const units = (text) => BigInt(text.replace(".", ""));

/** The amount of so many 10^-8, in eight decimals, with a sign if `signed`. */
export function amount(value, signed = false) {
  const sign = value < 0n ? "−" : signed && value > 0n ? "+" : "";
  const digits = (value < 0n ? -value : value).toString().padStart(DECIMALS + 1, "0");
  return `${sign}${digits.slice(0, -DECIMALS)}.${digits.slice(-DECIMALS)}`;
}

/** An element with all digits of an amount; the zeros that only pad it are paler, but there. */
export function exact(text, className = "") {
  const element = document.createElement("span");
  element.className = `amount ${className}`.trim();
  fill(element, text);
  return element;
}

/** Writes an amount into an element as `exact` does. */
export function fill(element, text) {
  if (element.dataset.amount === text) return;
  element.dataset.amount = text;
  const point = text.indexOf(".");
  let end = text.length;
  while (end > point + 1 + SHOWN_DECIMALS && text[end - 1] === "0") end -= 1;
  const pad = document.createElement("span");
  pad.className = "pad";
  pad.textContent = text.slice(end);
  element.replaceChildren(text.slice(0, end), pad);
}

/** The change from one amount to another: -1, 0 or 1, the difference, and the percentage in two decimals. */
export function change(before, after) {
  const [from, to] = [units(before), units(after)];
  const difference = to - from;
  const direction = difference > 0n ? 1 : difference < 0n ? -1 : 0;
  // Hundredths of a percent, rounded half away from zero: this is the one number on the page that is rounded.
  const size = difference < 0n ? -difference : difference;
  const hundredths = from === 0n ? 0n : (size * 100_000n / from + 5n) / 10n;
  const sign = hundredths === 0n ? "" : direction > 0 ? "+" : "−";
  const percent = `${sign}${hundredths / 100n}.${(hundredths % 100n).toString().padStart(2, "0")} %`;
  return { direction, difference: amount(difference, true), percent };
}
