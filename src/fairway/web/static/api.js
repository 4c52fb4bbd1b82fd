// Questions to the server that sent this page. Every address is relative, so that any path prefix works.

export const MAX_BYTES = 5 * 1024 * 1024;
const TIMEOUT_MS = 20_000;

/** What went wrong and what to do next, in the server's words. */
export class Refusal extends Error {
  constructor(message, hint = "", status = 0) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

export const getState = () => ask("api/state", { cache: "no-cache" });
export const askPicture = (blob) => ask("api/predict", { method: "POST", body: blob });
export const askRandom = () => ask("api/random", { method: "POST" });

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new Refusal("this page’s own server does not answer", "Is fairway up or fairway web still running?");
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  throw new Refusal(content.error ?? `the server answers with HTTP ${response.status}`, content.hint, response.status);
}
