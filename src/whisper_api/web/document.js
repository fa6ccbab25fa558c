// One transcript being read and mended. Every change is a splice, so undo is a splice back.

import { realign, rescale, round } from "./words.js";

const MOST_UNDO = 500;
let nextKey = 1;

function own(segment) {
  const { start, end, text, words = [], avg_logprob: logprob = null } = segment;
  return { key: nextKey++, start, end, text: text.trim(), words: words ?? [], logprob };
}

export class Transcript extends EventTarget {
  segments = [];
  #undo = [];
  #redo = [];

  load(segments) {
    this.segments = segments.map(own);
    this.#undo = [];
    this.#redo = [];
    this.#tell({ at: 0, removed: 0, inserted: this.segments.length, fresh: true });
  }

  /** A segment that has just been recognised; segments may come twice after a broken connection. */
  append(segment) {
    const last = this.segments.at(-1);
    if (last && segment.start < last.start) return;
    if (last && segment.start === last.start && segment.text.trim() === last.text) return;
    this.segments.push(own(segment));
    this.#tell({ at: this.segments.length - 1, removed: 0, inserted: 1, fresh: true });
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  get text() {
    return this.segments.map((segment) => segment.text).join(" ");
  }

  indexOf(key) {
    return this.segments.findIndex((segment) => segment.key === key);
  }

  // --- changes ------------------------------------------------------------------------------

  /** `session`: changes of one sitting at one segment become one step to undo. */
  setText(key, text, session = null) {
    const old = this.#get(key);
    if (text === old.text) return;
    const words = realign(text, old.words, old.start, old.end);
    this.#replace(key, [{ ...old, text, words, edited: true }], session);
  }

  setTimes(key, start, end) {
    const old = this.#get(key);
    if (start === old.start && end === old.end) return;
    const words = rescale(old.words, [old.start, old.end], [start, end]);
    this.#replace(key, [{ ...old, start: round(start), end: round(end), words }]);
  }

  /** Cut a segment before character `at` of its text; says whether there was anything to cut. */
  split(key, at) {
    const old = this.#get(key);
    const texts = [old.text.slice(0, at).trim(), old.text.slice(at).trim()];
    if (!texts[0] || !texts[1]) return false;
    const time = this.#timeOf(old, at, texts[0]);
    const words = [old.words.filter((w) => w.start < time), old.words.filter((w) => w.start >= time)];
    this.#replace(key, [
      { ...old, text: texts[0], words: words[0], end: time },
      { ...old, key: nextKey++, text: texts[1], words: words[1], start: time },
    ]);
    return true;
  }

  /** Join a segment and the next one; says whether there is a next one. */
  merge(key) {
    const at = this.indexOf(key);
    const [first, second] = this.segments.slice(at, at + 2);
    if (!second) return false;
    const text = `${first.text} ${second.text}`;
    const words = [...first.words, ...second.words];
    const end = Math.max(first.end, second.end);
    this.#splice({ at, removed: [first, second], inserted: [{ ...first, text, words, end }] });
    return true;
  }

  remove(key) {
    const at = this.indexOf(key);
    this.#splice({ at, removed: [this.segments[at]], inserted: [] });
  }

  replaceAll(find, replacement) {
    let count = 0;
    const changed = this.segments.map((segment) => {
      const text = segment.text.replace(find, () => (count++, replacement));
      if (text === segment.text) return segment;
      const words = realign(text, segment.words, segment.start, segment.end);
      return { ...segment, text, words, edited: true };
    });
    if (count) this.#splice({ at: 0, removed: this.segments, inserted: changed });
    return count;
  }

  undo() {
    const step = this.#undo.pop();
    if (!step) return null;
    this.#redo.push(step);
    return this.#apply({ at: step.at, removed: step.inserted, inserted: step.removed });
  }

  redo() {
    const step = this.#redo.pop();
    if (!step) return null;
    this.#undo.push(step);
    return this.#apply(step);
  }

  // --- inside -------------------------------------------------------------------------------

  #get(key) {
    return this.segments[this.indexOf(key)];
  }

  #timeOf(segment, at, before) {
    const count = before.split(/\s+/).length;
    const word = segment.words.length === segment.text.split(/\s+/).length && segment.words[count];
    const share = segment.start + ((segment.end - segment.start) * at) / segment.text.length;
    return round(word ? word.start : share);
  }

  #replace(key, inserted, session = null) {
    const at = this.indexOf(key);
    const last = this.#undo.at(-1);
    if (session !== null && last?.session === session && last.inserted[0]?.key === key) {
      last.inserted = inserted;
      this.#redo = [];
      this.#apply({ at, removed: [this.segments[at]], inserted });
      return;
    }
    this.#splice({ at, removed: [this.segments[at]], inserted, session });
  }

  #splice(step) {
    this.#undo.push(step);
    if (this.#undo.length > MOST_UNDO) this.#undo.shift();
    this.#redo = [];
    this.#apply(step);
  }

  #apply({ at, removed, inserted }) {
    const { segments } = this;
    this.segments = [...segments.slice(0, at), ...inserted, ...segments.slice(at + removed.length)];
    this.#tell({ at, removed: removed.length, inserted: inserted.length, fresh: false });
    return at;
  }

  #tell(detail) {
    this.dispatchEvent(new CustomEvent("change", { detail }));
  }

  /** What the server keeps, as pieces of JSON: written bit by bit, so that typing never waits. */
  async toJson() {
    const { segments } = this;
    const parts = [];
    let fresh = 0;
    for (const segment of segments) {
      if (!written.has(segment)) {
        written.set(segment, JSON.stringify(toSave(segment)));
        if (++fresh % AT_ONCE === 0) await new Promise((go) => setTimeout(go));
      }
      parts.push(parts.length ? "," : "", written.get(segment));
    }
    return parts;
  }
}

const AT_ONCE = 200;
const written = new WeakMap(); // segments never change, their texts neither

const toSave = ({ start, end, text, words }) => ({
  start,
  end,
  text,
  ...(words.length ? { words: words.map(kept) } : {}),
});

/** A word that somebody typed has no probability of the model's. */
function kept({ word, start, end, probability = null }) {
  return { word, start, end, ...(probability === null ? {} : { probability }) };
}
