// Ties the parts of the page together: the pad asks, the answer shows, the state is followed.

import { Answer } from "./answer.js";
import { askPicture, getState } from "./api.js";
import { byId, sentence, setWords } from "./dom.js";
import { Pad } from "./pad.js";
import { Record } from "./record.js";
import { Trial } from "./trial.js";
import { acceptPictures } from "./upload.js";

const PAUSE_MS = 60;
const FOLLOW_MS = { steady: 3000, changing: 1000 };
const WELCOME = "With mouse, finger or pen. Or upload, paste or drop a PNG or JPEG.";

const answer = new Answer();
const record = new Record();
const pad = new Pad(byId("canvas"), changed);
let state = null;
let wanted = false;
let asking = false;
let timer = 0;

new Trial(() => state, explain);
byId("clear").addEventListener("click", () => pad.clear());
acceptPictures({
  button: byId("upload"),
  input: byId("file"),
  target: byId("pad"),
  take: (blob, bitmap) => pad.setPicture(blob, bitmap),
  fail: showRefusal,
});
document.addEventListener("visibilitychange", () => document.hidden || follow());
showWelcome();
follow();

function changed() {
  byId("ghost").hidden = !pad.isEmpty;
  if (pad.isEmpty) {
    answer.clear();
    showWelcome();
  } else {
    ask();
  }
}

/** Ask about what is on the pad: one question at a time, and of those that wait only the newest. */
async function ask() {
  wanted = true;
  if (asking) return;
  setBusy(true);
  while (wanted && !pad.isEmpty) {
    wanted = false;
    await askOnce();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  setBusy(false);
}

function setBusy(busy) {
  asking = busy;
  byId("answer").setAttribute("aria-busy", busy);
}

async function askOnce() {
  try {
    const result = await askPicture(await pad.toBlob());
    if (pad.isEmpty) return; // cleared meanwhile
    answer.show(result);
    showWelcome();
  } catch (error) {
    if (pad.isEmpty) return;
    answer.clear();
    showRefusal(error);
  }
}

function showWelcome() {
  byId("message").classList.remove("bad");
  byId("message").textContent = WELCOME;
}

function showRefusal(error) {
  byId("message").classList.add("bad");
  setWords(byId("message"), explain(error));
}

/** Put an error into words, unless those at the top of the page say it already. */
function explain({ message, hint, status }) {
  const known = status === 503 && state && state.server.state !== "serving";
  return known ? "No answer yet: see above. It comes as soon as a model is served." : `${sentence(message)} ${hint ?? ""}`;
}

/** Ask for the state again and again, less often when nothing changes, and never while nobody looks. */
async function follow() {
  clearTimeout(timer);
  try {
    show(await getState());
  } catch (error) {
    show({ server: { state: "down", version: null, message: error.message, hint: error.hint } });
  }
  const steady = state.server.state === "serving" && state.training?.state !== "running";
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(follow, steady ? FOLLOW_MS.steady : FOLLOW_MS.changing);
}

function show(next) {
  const { server, training } = next;
  const renewed = server.version !== null && server.version !== state?.server.version;
  state = next;
  byId("status").dataset.state = server.state;
  const short = { serving: server.message, loading: server.message, empty: "no model yet", failed: "no model", down: "no answer" };
  setText(byId("status-text"), short[server.state]);
  showNotice(server, training);
  if (next.record_note !== undefined) record.update(next);
  if (renewed && !pad.isEmpty) ask();
}

function showNotice(server, training) {
  const notice = byId("notice");
  notice.hidden = server.state === "serving";
  notice.dataset.state = server.state;
  setText(byId("notice-message"), sentence(server.message));
  setWords(byId("notice-hint"), server.hint ?? "");
  const progress = byId("notice-progress");
  progress.hidden = server.state !== "empty" || !training?.total;
  if (progress.hidden) return;
  progress.setAttribute("aria-valuemax", training.total);
  progress.setAttribute("aria-valuenow", training.step);
  progress.firstElementChild.style.width = `${(100 * training.step) / training.total}%`;
}

// Unchanged text is left alone: a live region would read it out again.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
