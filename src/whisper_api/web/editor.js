// One segment being edited in its place: text, times, split, join, delete.

import { h, write } from "./dom.js";
import { piecesOf } from "./doubts.js";
import { icon } from "./icons.js";
import { nameOf } from "./keys.js";
import { clock, parseClock, t } from "./text.js";

const IDLE = 900;

/** `actions`: close(), play(), moved(step), grown(). `piece`: the word to select; `duration`: of the recording. */
export class Editor {
  closed = false; // leaving the page makes fields fire once more
  #timer = 0;

  constructor(doc, segment, piece, duration, actions) {
    Object.assign(this, { doc, duration, key: segment.key, actions, before: segment.text });
    this.session = `${segment.key}.${performance.now()}`;
    this.area = h("textarea", { rows: 1, "aria-label": t("edit.text"), spellcheck: "true", value: segment.text });
    this.start = this.#timeField("edit.start", segment.start);
    this.end = this.#timeField("edit.end", segment.end);
    this.note = h("p", { class: "edit-note", role: "status" }, t("edit.hint"));
    this.node = h("div", { class: "grow" }, this.area, this.#row(), this.note);
    this.area.addEventListener("input", () => this.#typed());
    this.area.addEventListener("keydown", (event) => this.#key(event));
    this.node.addEventListener("focusout", (event) => this.#left(event));
    this.piece = piece;
  }

  /** To be called once the node is on the page. */
  focus() {
    this.#fit();
    this.area.focus({ preventScroll: true });
    const segment = this.#segment();
    const found = this.piece === null || this.piece === undefined ? null : piecesOf(segment)[this.piece];
    const end = this.area.value.length;
    if (found) this.area.setSelectionRange(found.at, found.at + found.text.trimEnd().length);
    else this.area.setSelectionRange(end, end);
  }

  /** Take over what was typed. */
  commit() {
    clearTimeout(this.#timer);
    if (!this.#segment()) return;
    const text = this.area.value.split(/\s+/).filter(Boolean).join(" ");
    if (text) this.doc.setText(this.key, text, this.session);
    else this.doc.remove(this.key);
  }

  #segment() {
    return this.doc.segments[this.doc.indexOf(this.key)];
  }

  #timeField(label, value) {
    const about = { inputmode: "decimal", autocomplete: "off", value: clock(value, 2) };
    const field = h("input", { ...about, onchange: () => this.#times() });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") (this.#times(), this.actions.close());
    });
    return { field, node: h("label", { class: "field" }, h("span", {}, t(label)), field) };
  }

  #row() {
    const button = (name, label, run) =>
      h("button", { type: "button", class: "soft", onclick: run }, icon(name, 18), h("span", { class: "label" }, t(label)));
    return h(
      "div",
      { class: "edit-row" },
      this.start.node,
      this.end.node,
      h(
        "div",
        { class: "end" },
        button("split", "edit.split", () => this.split()),
        button("merge", "edit.merge", () => this.#merge()),
        button("trash", "edit.remove", () => this.#remove()),
        h("button", { type: "button", class: "primary", onclick: () => this.actions.close() }, t("edit.done")),
      ),
    );
  }

  #typed() {
    this.#fit();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.area.value.trim() && this.commit(), IDLE);
  }

  #fit() {
    const before = this.area.style.height;
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight + 2}px`;
    if (before !== this.area.style.height) this.actions.grown();
  }

  #times() {
    if (this.closed) return;
    const [start, end] = [parseClock(this.start.field.value), parseClock(this.end.field.value)];
    const good = start >= 0 && end > start && end <= this.duration + 0.005;
    for (const { field } of [this.start, this.end]) field.setAttribute("aria-invalid", String(!good));
    write(this.note, t(good ? "edit.hint" : "edit.badTimes"));
    this.note.classList.toggle("bad", !good);
    if (!good) return;
    this.commit();
    this.doc.setTimes(this.key, start, Math.min(end, this.duration));
  }

  split() {
    const at = this.area.selectionStart;
    this.commit();
    if (this.#segment() && this.doc.split(this.key, at)) return this.actions.close({ discard: true });
    write(this.note, t("edit.cannotSplit"));
    this.note.classList.add("bad");
    this.area.focus();
  }

  #merge() {
    this.commit();
    if (this.#segment()) this.doc.merge(this.key);
    this.actions.close({ discard: true });
  }

  #remove() {
    clearTimeout(this.#timer);
    this.area.value = this.before;
    this.actions.close({ discard: true });
    this.doc.remove(this.key);
  }

  #key(event) {
    const name = nameOf(event);
    const run = {
      Enter: () => this.actions.close(),
      "Ctrl+Enter": () => this.split(),
      "Ctrl+Space": () => this.actions.play(),
      Escape: () => this.#restore(),
      "Alt+ArrowDown": () => this.actions.moved(1),
      "Alt+ArrowUp": () => this.actions.moved(-1),
    }[name];
    if (!run || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation();
    run();
  }

  #restore() {
    this.area.value = this.before;
    this.commit();
    this.actions.close();
  }

  /** The work is taken over when the person goes elsewhere, but stays open while they look. */
  #left(event) {
    if (this.closed) return;
    const inside = event.relatedTarget && this.node.contains(event.relatedTarget);
    if (!inside && this.area.value.trim()) this.commit();
  }
}
