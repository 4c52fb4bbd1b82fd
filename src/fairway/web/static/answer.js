// The recognised digit, how sure the model is, what it saw, and a bar for each digit.

import { byId, el, percent } from "./dom.js";

const PLACEHOLDER = "The model’s answer appears here while you draw.";

export class Answer {
  #root = byId("answer");
  #bars;

  constructor() {
    this.#bars = Array.from({ length: 10 }, (_, digit) => {
      const fill = el("div", { class: "fill" });
      const value = el("span", { class: "value" });
      const track = el("div", { class: "track", "aria-hidden": "true" }, fill);
      const row = el("li", {}, el("span", { class: "label" }, String(digit)), track, value);
      return { row, fill, value };
    });
    byId("bars").append(...this.#bars.map(({ row }) => row));
    this.clear();
  }

  clear() {
    this.#root.dataset.state = "idle";
    byId("digit").textContent = "?";
    byId("percent").textContent = "";
    byId("by").textContent = PLACEHOLDER;
    byId("seen").removeAttribute("src");
    byId("seen").alt = "";
    this.#setBars(Array(10).fill(0), -1);
    for (const { value } of this.#bars) value.textContent = "";
  }

  show({ digit, probabilities, version, seen, ms }) {
    this.#root.dataset.state = "answered";
    byId("digit").textContent = digit;
    byId("percent").textContent = percent(probabilities[digit]);
    byId("by").replaceChildren(`version ${version}`, el("br"), `in ${ms.toFixed(ms < 10 ? 1 : 0)} ms`);
    byId("seen").src = seen;
    byId("seen").alt = "The drawing as the model gets it: 28 by 28 pixels";
    this.#setBars(probabilities, digit);
  }

  #setBars(probabilities, top) {
    this.#bars.forEach(({ row, fill, value }, digit) => {
      fill.style.width = `${(100 * probabilities[digit]).toFixed(2)}%`;
      value.textContent = percent(probabilities[digit]);
      row.classList.toggle("best", digit === top);
    });
  }
}
