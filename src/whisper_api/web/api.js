// Every call to the server. Failures are ApiErrors that `problem` turns into words for people.

import { at } from "./place.js";
import { key } from "./prefs.js";
import { t } from "./text.js";

export class ApiError extends Error {
  constructor({ status = 0, code = null, message = "", param = null, after = null, id = null }) {
    super(message);
    Object.assign(this, { status, code, param, after, id });
  }
}

let askForKey = null;

/** `ask(refused)` is to get a key from the person; its promise tells whether there is a new one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export function headers(more = {}) {
  const value = key.get();
  return value ? { Authorization: `Bearer ${value}`, ...more } : more;
}

/** Do `action`; where it fails for want of a key, ask for one and do it once more. */
export async function withKey(action) {
  try {
    return await action();
  } catch (error) {
    if (error.status !== 401 || !askForKey || !(await askForKey(error))) throw error;
    return action();
  }
}

/** One request; an answer of 400 or more throws. A missing key is asked for once. */
export function request(path, options = {}) {
  return withKey(() => attempt(path, options));
}

async function attempt(path, options) {
  let answer;
  try {
    answer = await fetch(at(path), { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ code: "offline", message: String(error.message) });
  }
  if (!answer.ok) throw await errorOf(answer);
  return answer;
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

export function sendJson(method, path, body) {
  const type = { "Content-Type": "application/json" };
  return getJson(path, { method, body: JSON.stringify(body), headers: type });
}

export async function errorOf(answer) {
  return errorFrom(answer.status, await answer.text(), (name) => answer.headers.get(name));
}

/** An ApiError from an answer's parts; `header` looks a header up. */
export function errorFrom(status, text, header) {
  const about = { status, id: header("x-request-id"), after: Number(header("retry-after")) || null };
  try {
    return new ApiError({ ...JSON.parse(text).error, ...about });
  } catch {
    return new ApiError({ ...about, message: text.slice(0, 200) });
  }
}

/** What went wrong and what to do, in the page's language: {text, detail (the server's words)}. */
export function problem(error) {
  const { code, status, message = "", after } = error;
  const own = code && t(`error.${code}`) !== `error.${code}`;
  const general = [`error.status.${status}`, "error.other"].find((name) => t(name) !== name);
  const text = t(own ? `error.${code}` : general, { after: after ?? 10 });
  // Where the page has no words of its own for an error, the server's say more.
  const more = own || !message ? "" : ` ${t("error.details", { detail: message })}`;
  return { text: text + more, detail: message };
}

// --- the server -----------------------------------------------------------------------------

export const capabilities = () => getJson("/v1/capabilities");
const model = (id) => `/v1/models/${id.split("/").map(encodeURIComponent).join("/")}`;

export const queue = () => getJson("/v1/queue");
export const workers = () => getJson("/v1/workers");
export const models = () => getJson("/v1/models/catalog");
export const pulls = () => getJson("/v1/models/pulls");
export const pullModel = (name) => sendJson("POST", "/v1/models/pull", { model: name });
export const stopPull = (id) => request(`/v1/models/pulls/${id}`, { method: "DELETE" });
export const removeModel = (id) => request(model(id), { method: "DELETE" });

/** The answer of /ready, also where it is a 503; null where there is no server. */
export async function ready() {
  try {
    return await (await fetch(at("/ready"))).json();
  } catch {
    return null;
  }
}

// --- tasks ----------------------------------------------------------------------------------

const task = (id) => `/v1/tasks/${encodeURIComponent(id)}`;

export const tasks = (query = {}) => getJson(`/v1/tasks?${new URLSearchParams(query)}`);
export const getTask = (id) => getJson(task(id));
export const dropTask = (id) => request(task(id), { method: "DELETE" });
export const retryTask = (id) => getJson(`${task(id)}/retry`, { method: "POST" });
export const taskAudio = (id) => `${task(id)}/audio`;
export const taskPeaks = (id) => getJson(`${task(id)}/peaks`);
export const taskEvents = (id) => `${task(id)}/events`;
export const createTask = (body) => sendJson("POST", "/v1/audio/transcriptions/async", body);

// --- history --------------------------------------------------------------------------------

const record = (id) => `/v1/history/${encodeURIComponent(id)}`;

export const history = (query = {}) => getJson(`/v1/history?${new URLSearchParams(query)}`);
export const getRecord = (id) => getJson(record(id));
export const saveRecord = (id, body) =>
  request(record(id), { method: "PATCH", body, headers: { "Content-Type": "application/json" } });
export const revertRecord = (id) => getJson(`${record(id)}/revert`, { method: "POST" });
export const dropRecord = (id) => request(record(id), { method: "DELETE" });
export const audioPath = (id) => `${record(id)}/audio`;
export const peaks = (id) => getJson(`${record(id)}/peaks`);
