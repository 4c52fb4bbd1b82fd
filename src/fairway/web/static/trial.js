// A random image of the test set: the truth, the answer, and the score so far.

import { askRandom } from "./api.js";
import { byId, count, el, percent, setWords } from "./dom.js";

export class Trial {
  #root = byId("trial");
  #asked = 0;
  #right = 0;
  #busy = false;

  /**
   * @param state Returns the newest state of the server, for what the accuracy was measured on.
   * @param explain Puts an error into words.
   */
  constructor(state, explain) {
    byId("random").addEventListener("click", () => this.#ask(state, explain));
  }

  async #ask(state, explain) {
    if (this.#busy) return;
    this.#busy = true;
    try {
      this.#show(await askRandom(), state()?.record);
    } catch (error) {
      this.#root.dataset.state = "error";
      byId("sample").removeAttribute("src");
      byId("sample").alt = "";
      setWords(byId("trial-verdict"), explain(error));
      byId("trial-source").textContent = "";
    } finally {
      this.#busy = false;
    }
  }

  #show({ index, source, truth, digit, probabilities, version, image }, record) {
    const right = truth === digit;
    this.#root.dataset.state = right ? "right" : "wrong";
    byId("sample").src = image;
    byId("sample").alt = `Image ${index} of ${source}`;
    const sure = percent(probabilities[digit]);
    const words = right ? `: it is a ${truth}, and the model says so (${sure}).`
      : `: it is a ${truth}, but the model says ${digit} (${sure}; ${percent(probabilities[truth])} for ${truth}).`;
    byId("trial-verdict").replaceChildren(el("span", { class: "tag" }, right ? "Right" : "Wrong"), words);
    const other = record?.dataset && record.version === version && record.dataset.test_name !== source;
    const caveat = other ? ` Its accuracy was measured on others: ${record.dataset.test_name}.` : "";
    byId("trial-source").textContent = `Image ${count(index)} of ${source}; answered by version ${version}.${caveat}`;
    this.#asked += 1;
    this.#right += right ? 1 : 0;
    byId("tally").textContent = `${this.#right} of ${this.#asked} right`;
  }
}
