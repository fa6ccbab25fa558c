// Search within one transcript, and replacing.

import { h, write } from "./dom.js";
import { t } from "./text.js";
import { iconButton } from "./ui.js";

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export class Finder {
  #matches = [];
  #at = -1;

  /** `actions`: go(key), close(); `lines` shows the segments of `doc`. */
  constructor(doc, lines, actions) {
    Object.assign(this, { doc, lines, actions });
    const hint = t("search.label");
    this.field = h("input", { type: "search", placeholder: hint, "aria-label": hint, oninput: () => this.#search() });
    this.replacement = h("input", { placeholder: t("search.replace"), "aria-label": t("search.replace") });
    this.said = h("output", { role: "status" });
    this.all = h("button", { type: "button", class: "soft", onclick: () => this.#replace() }, t("search.replaceAll"));
    this.node = h(
      "div",
      { class: "finder", role: "search" },
      this.field,
      this.said,
      iconButton("up", t("search.previous"), () => this.step(-1)),
      iconButton("down", t("search.next"), () => this.step(1)),
      this.replacement,
      this.all,
      iconButton("close", t("search.close"), () => this.close()),
    );
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.onChange = () => this.#search(false);
    this.node.hidden = true;
  }

  open() {
    if (this.node.hidden) this.doc.addEventListener("change", this.onChange);
    this.node.hidden = false;
    this.field.focus();
    this.field.select();
    this.#search(false);
  }

  close() {
    this.doc.removeEventListener("change", this.onChange);
    this.node.hidden = true;
    this.#matches = [];
    this.paint();
    this.actions.close();
  }

  step(by) {
    const count = this.#matches.length;
    if (!count) return;
    this.#at = (this.#at + by + count) % count;
    this.#tell();
    this.actions.go(this.#matches[this.#at].key);
    this.paint();
  }

  /** Mark what is found among the rows that are on the page. */
  paint() {
    if (!CSS.highlights) return;
    CSS.highlights.delete("found");
    CSS.highlights.delete("found-now");
    if (this.node.hidden || !this.#matches.length) return;
    const rows = new Map(this.lines.visible.map((row) => [row.segment.key, row.node]));
    const [others, now] = [new Highlight(), new Highlight()];
    this.#matches.forEach((match, place) => {
      const text = rows.get(match.key)?.querySelector(".line-text");
      const range = text && rangeIn(text, match.from, match.to);
      if (range) (place === this.#at ? now : others).add(range);
    });
    CSS.highlights.set("found", others);
    CSS.highlights.set("found-now", now);
  }

  #search(move = true) {
    const words = this.field.value.trim();
    this.#matches = [];
    if (words) {
      const pattern = new RegExp(escaped(words), "giu");
      for (const { key, text } of this.doc.segments) {
        for (const { index, 0: found } of text.matchAll(pattern)) {
          this.#matches.push({ key, from: index, to: index + found.length });
        }
      }
    }
    this.all.disabled = this.replacement.disabled = !this.#matches.length;
    this.#at = Math.min(Math.max(this.#at, 0), this.#matches.length - 1);
    if (move && this.#matches.length) this.#nearest();
    this.#tell();
    this.paint();
  }

  /** Begin at the segment that is looked at. */
  #nearest() {
    const from = this.lines.rowOf(this.lines.current);
    const rows = new Map(this.doc.segments.map(({ key }, place) => [key, place]));
    const found = this.#matches.findIndex(({ key }) => rows.get(key) >= from);
    this.#at = Math.max(0, found);
    this.actions.go(this.#matches[this.#at].key);
  }

  #tell() {
    const count = this.#matches.length;
    const none = this.field.value.trim() ? t("search.none") : "";
    write(this.said, count ? t("search.count", { at: this.#at + 1, count }) : none);
  }

  #replace() {
    const pattern = new RegExp(escaped(this.field.value.trim()), "giu");
    const count = this.doc.replaceAll(pattern, this.replacement.value);
    write(this.said, t("search.replaced", { count }));
  }

  #key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && event.target === this.field) this.step(event.shiftKey ? -1 : 1);
    else if (event.key === "Enter" && event.target === this.replacement) this.#replace();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function rangeIn(node, from, to) {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  const range = new Range();
  let at = 0;
  let begun = false;
  while (walker.nextNode()) {
    const { length } = walker.currentNode;
    if (!begun && at + length > from) {
      range.setStart(walker.currentNode, from - at);
      begun = true;
    }
    if (begun && at + length >= to) {
      range.setEnd(walker.currentNode, to - at);
      return range;
    }
    at += length;
  }
  return null;
}
