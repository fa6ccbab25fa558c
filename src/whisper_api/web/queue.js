// Recordings on their way: sending, then the server's tasks. What the server has survives this tab.

import { createTask, dropTask, retryTask, tasks } from "./api.js";

const AT_ONCE = 2;
const DAY = 86_400;
export const OVER = new Set(["completed", "failed", "cancelled"]);

class Queue extends EventTarget {
  items = [];
  #sending = 0;
  #timer = 0;
  #next = 1;

  /** Recordings to send: files, or {url}. Gives the new items. */
  add(sources, options) {
    const added = sources.map((source) => this.#item(source, options));
    this.items.push(...added);
    this.#changed();
    this.#send();
    return added;
  }

  find(taskId) {
    return this.items.find((item) => item.task?.id === taskId);
  }

  get active() {
    return this.items.filter((item) => !OVER.has(item.state));
  }

  /** Whether something would be lost if the tab closed now. */
  get sending() {
    return this.items.some((item) => item.state === "waiting" || item.state === "uploading");
  }

  async cancel(item) {
    item.abort?.abort();
    const { task } = item;
    this.#set(item, { state: "cancelled" });
    if (task) await dropTask(task.id).catch((error) => this.#set(item, { state: "failed", error }));
  }

  async retry(item) {
    if (item.task) {
      try {
        const task = await retryTask(item.task.id);
        this.#set(item, { error: null, task, state: task.status });
      } catch (error) {
        this.#set(item, { error });
      }
      this.watch();
      return;
    }
    this.#set(item, { state: "waiting", share: 0, error: null });
    this.#send();
  }

  /** Take a finished item off the list; a failed task is dropped on the server as well. */
  async remove(item) {
    this.items = this.items.filter((other) => other !== item);
    this.#changed();
    if (item.task && item.state !== "completed") await dropTask(item.task.id).catch(() => null);
  }

  clear() {
    for (const item of this.items.filter(({ state }) => OVER.has(state))) this.remove(item);
  }

  /** Follow the server's tasks for as long as there are any in progress. */
  async watch() {
    clearTimeout(this.#timer);
    try {
      await this.#read();
    } catch (error) {
      if (error.status === 401 || error.status === 404) return;
    }
    const waiting = this.items.filter((item) => item.task && !OVER.has(item.state)).length;
    if (waiting) this.#timer = setTimeout(() => this.watch(), waiting > 20 ? 2000 : 1000);
  }

  // --- sending ------------------------------------------------------------------------------

  #item(source, options) {
    const url = source.url ?? null;
    const file = url ? null : source;
    const name = file?.name ?? nameIn(url);
    const made = { key: this.#next++, version: 0, file, url, name, options, share: 0, task: null, error: null };
    const problem = source.problem ?? null;
    return { ...made, state: problem ? "failed" : "waiting", error: problem, abort: null };
  }

  async #send() {
    while (this.#sending < AT_ONCE) {
      const item = this.items.find(({ state }) => state === "waiting");
      if (!item) return;
      this.#sending++;
      this.#sendOne(item).finally(() => (this.#sending--, this.#send()));
    }
  }

  async #sendOne(item) {
    item.abort = new AbortController();
    this.#set(item, { state: "uploading" });
    try {
      const task = await this.#create(item);
      if (item.state === "cancelled") await dropTask(task.id);
      else this.#set(item, { task, state: task.status, share: 1 });
      this.watch();
    } catch (error) {
      if (item.state !== "cancelled") this.#set(item, { state: "failed", error });
    }
  }

  async #create({ file, url, options, abort, ...item }) {
    if (url) return createTask({ ...options, url });
    const onShare = (share) => this.#set(this.#byKey(item.key), { share });
    const { submit } = await import("./upload.js");
    return submit(file, options, onShare, abort.signal);
  }

  #byKey(key) {
    return this.items.find((item) => item.key === key) ?? {};
  }

  // --- following ----------------------------------------------------------------------------

  async #read() {
    const open = new Set(this.items.filter((i) => i.task && !OVER.has(i.state)).map((i) => i.task.id));
    let after = null;
    for (let page = 0; page < 10; page++) {
      const query = { limit: 100, order: "desc", ...(after ? { after } : {}) };
      const { data, has_more: more, last_id: last } = await tasks(query);
      for (const task of data) {
        open.delete(task.id);
        this.#take(task);
      }
      const busy = data.some((task) => !OVER.has(task.status));
      if (!more || (!open.size && !busy)) break;
      after = last;
    }
    // What the list no longer has was removed elsewhere.
    if (open.size) this.items = this.items.filter((item) => !open.has(item.task?.id));
    this.#changed();
  }

  #take(task) {
    const known = this.find(task.id);
    if (known) {
      if (differs(known.task, task)) this.#set(known, { task, state: task.status, error: task.error });
      return;
    }
    // It may be the one whose upload has not been answered yet; the end of each upload looks again.
    if (this.items.some(({ state }) => state === "uploading")) return;
    const recent = task.status === "failed" && task.created_at > Date.now() / 1000 - DAY;
    if (OVER.has(task.status) && !recent) return;
    const found = { file: null, url: null, name: task.name, options: task.options, share: 1 };
    this.items.push({ key: this.#next++, version: 0, ...found, task, state: task.status, error: task.error, abort: null });
  }

  #set(item, change) {
    const over = change.state && OVER.has(change.state) && item.state !== change.state;
    Object.assign(item, change);
    item.version++;
    if (over) this.dispatchEvent(new CustomEvent("over", { detail: item }));
    this.#changed();
  }

  #pending = false;

  /** One event for all changes of a moment. */
  #changed() {
    if (this.#pending) return;
    this.#pending = true;
    setTimeout(() => {
      this.#pending = false;
      this.dispatchEvent(new Event("change"));
    }, 100);
  }
}

const SHOWN = ["status", "progress", "processed_seconds", "eta_seconds", "duration_seconds"];
const differs = (before, now) => SHOWN.some((name) => before[name] !== now[name]);

function nameIn(url) {
  const last = url.split(/[?#]/)[0].split("/").pop() || url;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

export const queue = new Queue();
