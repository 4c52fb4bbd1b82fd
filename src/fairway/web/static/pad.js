// The drawing area: strokes as lines of points in 0..1, so that they survive resizing and changes of theme.

// MNIST's strokes are a seventh of the digit's size, and people draw on about two thirds of the pad.
const PEN = 1 / 11;
const SENT_SIZE = 280;
const SENT_PEN = { ofDigit: 0.16, least: 0.02, most: 0.12 };

export class Pad {
  #canvas;
  #changed;
  #strokes = [];
  #picture = null;
  #pointer = null;

  /** @param changed Called when what is on the pad has changed. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#end(event));
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get isEmpty() {
    return !this.#strokes.length && !this.#picture;
  }

  clear() {
    this.#strokes = [];
    this.#picture = null;
    this.#update();
  }

  /** Show a picture instead of a drawing. `blob` is what is sent; `bitmap` may be null if it cannot be shown. */
  setPicture(blob, bitmap) {
    this.#strokes = [];
    this.#picture = { blob, bitmap };
    this.#update();
  }

  /** Return what the model is to be asked about, as a picture file. */
  async toBlob() {
    if (this.#picture) return this.#picture.blob;
    const canvas = new OffscreenCanvas(SENT_SIZE, SENT_SIZE);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT_SIZE, SENT_SIZE);
    // As thick as MNIST's strokes are for this size of digit; a small drawing would become a blot.
    const pen = Math.min(Math.max(SENT_PEN.ofDigit * this.#extent(), SENT_PEN.least), SENT_PEN.most);
    this.#draw(context, SENT_SIZE, pen, "black");
    return canvas.convertToBlob({ type: "image/png" });
  }

  #start(event) {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#picture = null;
    this.#strokes.push([this.#point(event)]);
    this.#update();
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.#strokes.at(-1)?.push(...(events.length ? events : [event]).map((each) => this.#point(each)));
    this.#update();
  }

  #end(event) {
    if (event.pointerId === this.#pointer) this.#pointer = null;
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #extent() {
    const points = this.#strokes.flat();
    const span = (values) => Math.max(...values) - Math.min(...values);
    return Math.max(span(points.map(([x]) => x)), span(points.map(([, y]) => y)));
  }

  #update() {
    this.#paint();
    this.#changed();
  }

  #paint() {
    const size = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (this.#canvas.width !== size) this.#canvas.width = this.#canvas.height = size;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, size, size);
    if (this.#picture?.bitmap) paintPicture(context, size, this.#picture.bitmap);
    this.#draw(context, size, PEN, getComputedStyle(this.#canvas).color);
  }

  #draw(context, size, pen, colour) {
    context.lineWidth = pen * size;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = colour;
    context.beginPath();
    for (const stroke of this.#strokes) trace(context, stroke.map(([x, y]) => [x * size, y * size]));
    context.stroke();
  }
}

/** Lay a smooth line through points: curves that meet half-way between them. */
function trace(context, [first, ...rest]) {
  context.moveTo(...first);
  let before = first;
  for (const point of rest) {
    context.quadraticCurveTo(...before, (before[0] + point[0]) / 2, (before[1] + point[1]) / 2);
    before = point;
  }
  context.lineTo(before[0] + 0.01, before[1]); // a line of no length, a dot, would not be drawn everywhere
}

function paintPicture(context, size, bitmap) {
  const scale = size / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingEnabled = scale < 4;
  context.drawImage(bitmap, (size - width) / 2, (size - height) / 2, width, height);
}
