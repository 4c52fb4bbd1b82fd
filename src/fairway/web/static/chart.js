// A small line chart with axes; the pointer reads values off it.

import { count, el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 38, right: 8, top: 8, bottom: 20 };

export class Chart {
  #options;
  #svg = svg("svg", { role: "img" });
  #value = el("span", { class: "chart-value" });
  #data = { steps: [], values: [], test: null };
  #scale = null;

  /** @param options `title`; `format` for values; `floor` and `ceiling`, bounds of the vertical axis or null. */
  constructor(options) {
    this.#options = options;
    const head = el("div", { class: "chart-head" }, el("span", { class: "chart-title" }, options.title), this.#value);
    this.element = el("div", { class: "chart" }, head, this.#svg);
    for (const name of ["pointermove", "pointerdown"]) this.#svg.addEventListener(name, (event) => this.#read(event));
    this.#svg.addEventListener("pointerleave", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(this.#svg);
  }

  /** @param data `steps` and `values` of the same length; `test`: `{step, value}` or null. */
  update(data) {
    this.#data = data;
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    const { steps, values, test } = this.#data;
    if (!width || !steps.length) return;
    const { title, format, floor, ceiling } = this.#options;
    const shown = test ? [...values, test.value] : values;
    const x = linear(0, Math.max(...steps, test?.step ?? 0), MARGIN.left, width - MARGIN.right);
    const y = linear(floor ?? niceFloor(Math.min(...shown)), ceiling ?? Math.max(...shown), height - MARGIN.bottom, MARGIN.top);
    this.#scale = { x, y, height };
    const points = steps.map((step, i) => `${x(step).toFixed(1)},${y(values[i]).toFixed(1)}`);
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.replaceChildren(
      ...ticks(y.from, y.to, 4).flatMap((tick) => [
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
        svg("text", { x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick, true)),
      ]),
      ...ticks(x.from, x.to, 4).map((tick) => svg("text", { x: x(tick), y: height - 4, "text-anchor": anchor(tick, x) }, count(tick))),
      svg("polyline", { class: "line", points: points.join(" ") }),
      ...(test ? [svg("circle", { class: "test", cx: x(test.step), cy: y(test.value), r: 4 })] : []),
    );
    const last = `step ${count(steps.at(-1))}: ${format(values.at(-1))}`;
    this.#value.textContent = test ? `${last}, test ${format(test.value)}` : last;
    this.#svg.setAttribute("aria-label", `${title} over training steps. ${this.#value.textContent}`);
  }

  #read(event) {
    const { steps, values } = this.#data;
    if (!this.#scale || !steps.length) return;
    const { x, y, height } = this.#scale;
    const at = event.clientX - this.#svg.getBoundingClientRect().left;
    const nearest = steps.reduce((best, step, i) => (Math.abs(x(step) - at) < Math.abs(x(steps[best]) - at) ? i : best), 0);
    const [left, top] = [x(steps[nearest]), y(values[nearest])];
    this.#svg.querySelectorAll(".cursor, .at").forEach((mark) => mark.remove());
    this.#svg.append(
      svg("line", { class: "cursor", x1: left, x2: left, y1: MARGIN.top, y2: height - MARGIN.bottom }),
      svg("circle", { class: "at", cx: left, cy: top, r: 4.5 }),
    );
    this.#value.textContent = `step ${count(steps[nearest])}: ${this.#options.format(values[nearest])}`;
  }
}

function svg(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function linear(from, to, start, end) {
  const span = to - from || 1;
  return Object.assign((value) => start + ((value - from) / span) * (end - start), { from, to });
}

const niceFloor = (value) => Math.floor(value * 10) / 10;

/** Round values between two bounds, about as many as wanted. */
function ticks(from, to, wanted) {
  const rough = (to - from || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(from / step - 1e-9);
  return Array.from({ length: Math.floor(to / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

const anchor = (tick, x) => (tick === x.from ? "start" : x(tick) > x(x.to) - 14 ? "end" : "middle");
