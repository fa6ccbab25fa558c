// Corrections to the server by themselves, a moment after the last one.

import { saveRecord } from "./api.js";
import { show, write } from "./dom.js";
import { t } from "./text.js";

const WAIT = 1200;
const AGAIN = 5000;

export class Saver {
  #timer = 0;
  #dirty = null; // what changed since the last save: {title?, segments?}
  #busy = null;

  /** `content()` gives the segments as they are now, in pieces of JSON; `said` shows how it stands. */
  constructor(id, content, said) {
    Object.assign(this, { id, content, said });
  }

  get unsaved() {
    return Boolean(this.#dirty || this.#busy);
  }

  changed(what) {
    this.#dirty = { ...this.#dirty, ...what };
    this.#plan(WAIT);
  }

  /** Save now; resolves when nothing is left to save or it failed. */
  async flush() {
    clearTimeout(this.#timer);
    await this.#busy;
    if (!this.#dirty) return;
    const change = this.#dirty;
    this.#dirty = null;
    this.#busy = this.#send(change);
    await this.#busy;
    this.#busy = null;
    if (this.#dirty) this.#plan(this.failed ? AGAIN : WAIT);
  }

  /** Drop what is not saved. */
  forget() {
    clearTimeout(this.#timer);
    this.#dirty = null;
  }

  async #send({ title, segments }) {
    this.#say("save.saving");
    const body = segments ? ['{"segments":[', ...(await this.content()), "]"] : ["{"];
    if (title) body.push(segments ? "," : "", `"title":${JSON.stringify(title)}`);
    try {
      await saveRecord(this.id, new Blob([...body, "}"]));
      this.failed = false;
      this.#say("save.saved");
    } catch {
      this.failed = true;
      this.#dirty = { title, segments, ...this.#dirty };
      this.#say("save.failed");
    }
  }

  #plan(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), wait);
  }

  #say(name) {
    show(this.said, true);
    write(this.said, t(name));
    this.said.dataset.state = name;
  }
}
