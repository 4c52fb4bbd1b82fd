// Where the model comes from: its accuracy, its curves, its data; and a training while it runs.

import { Chart } from "./chart.js";
import { byId, count, el, percent, sentence, setWords } from "./dom.js";

/** The accuracy and the loss of one training. */
class Curves {
  #accuracy = new Chart({
    title: "Accuracy", floor: null, ceiling: 1, format: (value, short) => percent(value, short ? 0 : 2),
  });
  #loss = new Chart({
    title: "Loss", floor: 0, ceiling: null, format: (value, short) => (short ? String(+value.toPrecision(2)) : value.toFixed(3)),
  });
  element = el("div", { class: "charts" }, this.#accuracy.element, this.#loss.element);

  update(curve) {
    this.element.hidden = !curve?.steps.length;
    if (this.element.hidden) return;
    const test = (name) => curve.test && { step: curve.test.step, value: curve.test[name] };
    this.#accuracy.update({ steps: curve.steps, values: curve.accuracy, test: test("accuracy") });
    this.#loss.update({ steps: curve.steps, values: curve.loss, test: test("loss") });
  }
}

export class Record {
  #curves = new Curves();
  #live = new Curves();
  #shown = "";

  update({ server, training, record, record_note: note }) {
    this.#showTraining(training);
    const wanted = JSON.stringify([server.version, record, note, Boolean(training)]);
    if (wanted === this.#shown) return;
    this.#shown = wanted;
    byId("record").classList.toggle("bare", !record);
    byId("version").replaceChildren(...(record ? this.#describe(record) : [explain(server, training, note)]));
    this.#curves.update(record?.curve);
  }

  #showTraining(training) {
    const root = byId("training");
    if (!training) return root.replaceChildren();
    if (!root.firstChild) {
      root.append(el("div", { class: "live" }, el("p", { class: "live-head" }), this.#live.element));
    }
    root.querySelector(".live-head").textContent = sentence(training.message);
    this.#live.update(training.curve);
    return root;
  }

  #describe(record) {
    const { dataset } = record;
    const images = count(dataset.test_images);
    const size = dataset.test_name.includes(images) ? "" : `, ${images} images`;
    const measured = `test accuracy on ${dataset.test_name}${size}`;
    return [
      el("p", { class: "figure" }, record.test_accuracy == null ? "–" : percent(record.test_accuracy, 2)),
      el("p", { class: "fine" }, measured),
      this.#curves.element,
      facts({
        Version: String(record.version),
        Model: `${record.model_type}${record.parameters ? `, ${count(record.parameters)} parameters` : ""}`,
        "Trained on": `${count(dataset.train_images)} images (${dataset.name})`,
        From: dataset.source,
        Training: `${count(record.steps)} steps${record.train_seconds ? ` in ${record.train_seconds.toFixed(1)} s` : ""}`,
        Exported: moment(record.created),
      }),
    ];
  }
}

function facts(entries) {
  const rows = Object.entries(entries).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("dl", { class: "facts" }, ...rows);
}

function explain(server, training, note) {
  const element = el("p", { class: "fine" });
  const nothing = training ? "Its accuracy on the test set follows when it is done." : "Its accuracy and its curves are shown as soon as a model is served.";
  setWords(element, server.state === "serving" ? note : nothing);
  return element;
}

function moment(text) {
  const date = new Date(text);
  return isNaN(date) ? text : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
