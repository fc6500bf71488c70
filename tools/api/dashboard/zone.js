// The time of the chart: UTC, or that of this computer if one says so.

const KEY = "zone";
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

let local = localStorage.getItem(KEY) === "local";

export const isLocal = () => local;

/** Chooses this computer's time, or UTC; it is kept for the next visit. */
export function setLocal(wanted) {
  local = wanted;
  if (local) localStorage.setItem(KEY, "local");
  else localStorage.removeItem(KEY);
}

/** The seconds that the chosen time is ahead of UTC at a moment, in seconds since 1970. Candles of a day are of days of UTC:
 * of their begin in another time the date would be that of the day before. */
export const ahead = (seconds, resolution) => (
  local && resolution !== "1d" ? -new Date(seconds * 1000).getTimezoneOffset() * 60 : 0
);

/** Such as UTC, UTC+1 or UTC−3:30: the chosen time at a moment. */
export function zoneAt(seconds, resolution) {
  const minutes = ahead(seconds, resolution) / 60;
  if (!minutes) return "UTC";
  const size = Math.abs(minutes);
  const rest = size % 60 ? `:${String(size % 60).padStart(2, "0")}` : "";
  return `UTC${minutes < 0 ? "−" : "+"}${Math.floor(size / 60)}${rest}`;
}

/** A moment in the chosen time, such as 2025-11-20 10:15:09. */
export const moment = (seconds, resolution) => (
  new Date((seconds + ahead(seconds, resolution)) * 1000).toISOString().slice(0, 19).replace("T", " ")
);

/** The day of a moment, such as Nov 20. */
export function day(seconds, resolution) {
  const [, month, date] = moment(seconds, resolution).slice(0, 10).split("-").map(Number);
  return `${MONTHS[month - 1]} ${date}`;
}
