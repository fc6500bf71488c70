// The search box for one symbol of many: a combobox with a list of what fits (WAI-ARIA, "editable combobox with list").

const FOUND_MAX = 50;

/** The symbols that fit what was typed: the same first, then those that begin so, then those that have it inside. */
function fitting(symbols, text) {
  const wanted = text.trim().toUpperCase();
  const starts = symbols.filter((symbol) => symbol.startsWith(wanted));
  const inside = symbols.filter((symbol) => symbol.indexOf(wanted) > 0);
  return [...starts.sort((one, other) => (other === wanted) - (one === wanted)), ...inside];
}

const counted = (count) => (count === 1 ? "1 symbol" : `${count.toLocaleString("en")} symbols`);

export class Finder {
  #root;
  #input;
  #list;
  #more;
  #symbols = [];
  #found = [];
  #active = -1;
  #choose;

  /** Finds in `root`; `choose` is called with the symbol that was chosen. */
  constructor(root, choose) {
    this.#root = root;
    this.#input = root.querySelector("input");
    this.#list = root.querySelector("[role=listbox]");
    this.#more = root.querySelector("[data-part=more]");
    this.#choose = choose;
    this.#input.addEventListener("input", () => this.#open());
    this.#input.addEventListener("click", () => this.#open());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#input.addEventListener("blur", () => this.#close());
    // The focus stays in the field, so that the list is still there for the click.
    root.querySelector("[data-part=popup]").addEventListener("mousedown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#take(option.dataset.symbol);
    });
    document.addEventListener("keydown", (event) => this.#slash(event));
  }

  /** Shows the box, for these symbols. */
  update(symbols) {
    this.#symbols = symbols;
    this.#input.placeholder = `Search ${counted(symbols.length)}`;
    this.#root.hidden = false;
  }

  #slash(event) {
    const busy = event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]");
    if (event.key !== "/" || busy || this.#root.hidden || event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    this.#input.focus();
    this.#input.select();
  }

  #key(event) {
    const isOpen = this.#input.ariaExpanded === "true";
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (!isOpen) this.#open();
      const count = this.#list.children.length;
      if (count) this.#mark(this.#active < 0 && step < 0 ? count - 1 : (this.#active + step + count) % count);
    } else if (event.key === "Enter") {
      const symbol = isOpen ? this.#found[Math.max(this.#active, 0)] : null;
      if (symbol) this.#take(symbol);
    } else if (event.key === "Escape") {
      this.#input.value = "";
      this.#close();
    } else return;
    event.preventDefault();
  }

  #open() {
    this.#found = fitting(this.#symbols, this.#input.value);
    this.#list.replaceChildren(...this.#found.slice(0, FOUND_MAX).map((symbol, index) => {
      const option = document.createElement("li");
      Object.assign(option, { id: `found-${index}`, ariaSelected: "false", textContent: symbol });
      option.setAttribute("role", "option");
      option.dataset.symbol = symbol;
      return option;
    }));
    const left = this.#found.length - FOUND_MAX;
    this.#more.textContent = !this.#found.length ? "No symbol fits" : left > 0 ? `${counted(left)} more: type on` : counted(this.#found.length);
    this.#root.querySelector("[data-part=popup]").hidden = false;
    this.#list.scrollTop = 0;
    this.#input.ariaExpanded = "true";
    // Enter takes the first, once something was typed.
    this.#mark(this.#input.value.trim() && this.#found.length ? 0 : -1);
  }

  #close() {
    this.#root.querySelector("[data-part=popup]").hidden = true;
    this.#input.ariaExpanded = "false";
    this.#mark(-1);
  }

  #mark(index) {
    this.#list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = index;
    const option = this.#list.children[index];
    if (!option) return this.#input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.#input.setAttribute("aria-activedescendant", option.id);
  }

  #take(symbol) {
    this.#input.value = "";
    this.#close();
    this.#choose(symbol);
  }
}
