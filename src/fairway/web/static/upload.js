// Pictures from files, the clipboard, or dropped.

import { MAX_BYTES, Refusal } from "./api.js";

const REDUCED_SIZE = 1024;

/** Call `take(blob, bitmap)` for each picture a visitor brings, or `fail(refusal)`. */
export function acceptPictures({ button, input, target, take, fail }) {
  const use = async (file) => {
    if (!file) return;
    try {
      take(...(await prepare(file)));
    } catch (error) {
      fail(error);
    }
  };
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    use(input.files[0]);
    input.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => use(event.clipboardData?.files[0]));
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("dropping");
  });
  target.addEventListener("dragleave", () => target.classList.remove("dropping"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("dropping");
    use(event.dataTransfer?.files[0]);
  });
}

/** Return what to send and what to show: a photo too large to send is reduced here. */
async function prepare(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (file.size <= MAX_BYTES) return [file, bitmap];
  if (!bitmap) {
    const size = (file.size / 1024 ** 2).toFixed(1);
    throw new Refusal(`the file has ${size} MB; the limit is ${MAX_BYTES / 1024 ** 2} MB`, "Choose a smaller picture.");
  }
  const scale = Math.min(1, REDUCED_SIZE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return [await canvas.convertToBlob({ type: "image/png" }), bitmap];
}
