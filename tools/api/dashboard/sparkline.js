// A line without axes: how a number was in the last minute. Its text says from where to where it went.

const VALUES_MAX = 60;
const WIDTH = 120;
const HEIGHT = 24;
const SVG = "http://www.w3.org/2000/svg";

export class Sparkline {
  #values = [];
  #path;
  #name;
  #unit;

  /** `name` and `unit` are for its text, such as "Trades per second" and "/s". */
  constructor(name, unit) {
    this.#name = name;
    this.#unit = unit;
    this.root = document.createElementNS(SVG, "svg");
    this.#path = document.createElementNS(SVG, "path");
    for (const [key, value] of Object.entries({ viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })) {
      this.root.setAttribute(key, value);
    }
    this.root.classList.add("spark");
    this.root.append(this.#path);
    this.#describe();
  }

  /** Adds the value of this second; null: it is not known. */
  add(value) {
    this.#values.push(value);
    if (this.#values.length > VALUES_MAX) this.#values.shift();
    const known = this.#values.filter((one) => one !== null);
    const low = Math.min(0, ...known);
    const height = Math.max(1e-9, Math.max(...known, 0) - low);
    const first = VALUES_MAX - this.#values.length;
    let pen = "M";
    // A time of which nothing is known is a hole in the line.
    this.#path.setAttribute("d", this.#values.map((one, index) => {
      if (one === null) {
        pen = "M";
        return "";
      }
      const x = ((first + index) * WIDTH) / (VALUES_MAX - 1);
      const y = HEIGHT - 1 - ((one - low) * (HEIGHT - 2)) / height;
      const step = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return step;
    }).join(""));
    this.#describe();
  }

  #describe() {
    const known = this.#values.filter((one) => one !== null);
    const range = `${Math.min(...known)} to ${Math.max(...known)} ${this.#unit}, now ${known.at(-1)} ${this.#unit}`;
    const text = `${this.#name} in the last minute: ${known.length ? range : "not known yet"}`;
    this.root.setAttribute("aria-label", text);
    this.root.dataset.values = this.#values.length;
  }
}
