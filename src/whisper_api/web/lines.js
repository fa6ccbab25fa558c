// The transcript as a list of which only the visible part exists, however long it is.

import { doubtOf, isUnsure, piecesOf } from "./doubts.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { clock, t } from "./text.js";

const AROUND = 700; // pixels kept ready above and below
const ROW = 40;
const LINE = 28;
const LETTER = 8.2;

export class Lines {
  current = null; // key of the chosen segment
  editing = null; // {key, node} while a segment is edited
  following = true;
  onPaint = () => {};
  #segments = [];
  #places = new Map(); // key -> place
  #tops = new Float64Array(1);
  #heights = new Map();
  #rows = new Map();
  #frame = 0;
  #spoken = null;
  #width = 0;

  /** `actions`: seek(time, segment), edit(segment). */
  constructor(scroll, actions) {
    this.scroll = scroll;
    this.list = h("div", { class: "lines", role: "list", "aria-label": t("studio.list") });
    this.scroll.append(this.list);
    this.actions = actions;
    scroll.addEventListener("scroll", () => this.#later(), { passive: true });
    for (const name of ["wheel", "touchmove"]) {
      scroll.addEventListener(name, () => this.leaveFollow(), { passive: true });
    }
    this.list.addEventListener("click", (event) => this.#click(event));
    this.list.addEventListener("dblclick", (event) => this.#doubleClick(event));
    this.observer = new ResizeObserver(() => this.#resized());
    this.observer.observe(scroll);
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  /** Show these; those that are the same objects as before stay as they are. */
  set(segments) {
    const atEnd = this.#isAtEnd();
    const grown = segments.length > this.#segments.length;
    this.#segments = segments;
    this.#places = new Map(segments.map(({ key }, place) => [key, place]));
    for (const key of this.#heights.keys()) if (!this.#places.has(key)) this.#heights.delete(key);
    this.#place();
    if (grown && atEnd && this.following && this.stick) this.scroll.scrollTop = this.#tops.at(-1);
    this.paint();
  }

  rowOf(key) {
    return this.#places.get(key) ?? -1;
  }

  nodeOf(key) {
    return this.#rows.get(key)?.node ?? null;
  }

  get visible() {
    return [...this.#rows.values()];
  }

  // --- where things are ---------------------------------------------------------------------

  #estimate({ text }) {
    const width = Math.max(200, Math.min(this.#width || 760, 800) - 140);
    return ROW - LINE + LINE * Math.max(1, Math.ceil((text.length * LETTER) / width));
  }

  #place() {
    const tops = new Float64Array(this.#segments.length + 1);
    tops[0] = 12;
    this.#segments.forEach((segment, place) => {
      tops[place + 1] = tops[place] + (this.#heights.get(segment.key) ?? this.#estimate(segment));
    });
    this.#tops = tops;
    this.list.style.height = `${tops.at(-1) + 24}px`;
  }

  /** The row at a height in pixels. */
  #at(y) {
    let [low, high] = [0, Math.max(0, this.#segments.length - 1)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #isAtEnd() {
    const { scrollTop, clientHeight } = this.scroll;
    return scrollTop + clientHeight > this.#tops.at(-1) - 60;
  }

  #resized() {
    const width = this.list.clientWidth;
    if (width !== this.#width) {
      this.#width = width;
      this.#heights.clear();
      for (const row of this.#rows.values()) row.measured = false;
      this.#place();
    }
    this.paint();
  }

  /** The height of a row has changed while it is shown. */
  remeasure(key) {
    const row = this.#rows.get(key);
    if (row) row.measured = false;
    this.#later();
  }

  // --- painting -----------------------------------------------------------------------------

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.#frame);
    for (let round = 0; round < 3; round++) {
      this.#fill();
      if (!this.#measure()) break;
    }
    this.onPaint();
  }

  #fill() {
    const { scrollTop, clientHeight } = this.scroll;
    const first = this.#at(scrollTop - AROUND);
    const last = Math.min(this.#segments.length - 1, this.#at(scrollTop + clientHeight + AROUND));
    const wanted = new Map();
    for (let place = first; place <= last; place++) wanted.set(this.#segments[place].key, place);
    const kept = [this.editing?.key, this.#focused()].map((key) => this.rowOf(key));
    for (const place of kept) if (place >= 0) wanted.set(this.#segments[place].key, place);
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.node.remove();
      this.#rows.delete(key);
    }
    for (const [key, place] of wanted) this.#show(key, place);
  }

  #focused() {
    const key = document.activeElement?.closest?.(".line")?.dataset.key;
    return key ? Number(key) : null;
  }

  #show(key, place) {
    const segment = this.#segments[place];
    const isEdited = this.editing?.key === key;
    const old = this.#rows.get(key);
    const same = old && old.isEdited === isEdited && (isEdited || old.segment === segment);
    const row = same ? old : this.#make(segment, isEdited);
    if (!same) {
      if (old) old.node.replaceWith(row.node);
      else this.#insert(row.node, place);
      this.#rows.set(key, row);
    }
    row.segment = segment;
    this.#dress(row, key, place);
  }

  /** Where a row stands and whether it is the chosen one; what is so already is left alone. */
  #dress(row, key, place) {
    const { node } = row;
    const top = this.#tops[place];
    if (row.top !== top) node.style.transform = `translateY(${top}px)`;
    const total = this.#segments.length;
    if (row.place !== place || row.total !== total) {
      node.setAttribute("aria-setsize", total);
      node.setAttribute("aria-posinset", place + 1);
    }
    const isCurrent = key === this.current;
    const index = isCurrent || (this.current === null && place === 0) ? 0 : -1;
    if (row.isCurrent !== isCurrent || row.index !== index) {
      node.classList.toggle("current", isCurrent);
      if (!row.isEdited) for (const button of node.querySelectorAll("button")) button.tabIndex = index;
    }
    Object.assign(row, { top, place, total, isCurrent, index });
  }

  /** In the order of the text, for who reads the page by its elements. */
  #insert(node, place) {
    const after = [...this.list.children].find((other) => this.rowOf(Number(other.dataset.key)) > place);
    this.list.insertBefore(node, after ?? null);
  }

  #make(segment, isEdited) {
    const { key, start } = segment;
    const data = { data: { key } };
    if (isEdited) {
      const node = h("div", { class: "line editing", role: "listitem", ...data }, this.editing.node);
      return { node, segment, isEdited, measured: false };
    }
    const time = h("button", { type: "button", class: "line-time", "aria-label": t("row.play", { time: clock(start) }) }, clock(start));
    const text = h("div", { class: "line-text" });
    text.classList.toggle("unsure", isUnsure(segment));
    if (segment.words.length) text.append(...piecesOf(segment).flatMap(word));
    else text.append(segment.text);
    const edit = h("button", { type: "button", class: "line-edit", title: t("row.edit"), "aria-label": t("row.edit") }, icon("edit", 18));
    const parts = [time, text, this.actions.edit ? edit : null];
    const node = h("div", { class: "line", role: "listitem", ...data }, parts);
    return { node, segment, isEdited, measured: false };
  }

  /** Whether a height was other than thought; what is on top of the view stays there. */
  #measure() {
    const top = this.scroll.scrollTop;
    const anchor = this.#at(top);
    const offset = top - this.#tops[anchor];
    let changed = false;
    for (const [key, row] of this.#rows) {
      if (row.measured) continue;
      row.measured = true;
      const height = row.node.offsetHeight;
      if (!height) row.measured = false;
      else if (height !== this.#heights.get(key)) {
        this.#heights.set(key, height);
        changed = true;
      }
    }
    if (!changed) return false;
    this.#place();
    const wanted = this.#tops[anchor] + offset;
    if (anchor > 0 && Math.abs(wanted - top) > 0.5) this.scroll.scrollTop = wanted;
    return true;
  }

  // --- choosing and following ---------------------------------------------------------------

  choose(key, { scroll = true } = {}) {
    this.current = key;
    if (scroll) this.reveal(key);
    this.paint();
  }

  /** Bring a segment into view, with room around it. */
  reveal(key) {
    const place = this.rowOf(key);
    if (place < 0) return;
    const { scrollTop, clientHeight } = this.scroll;
    const [top, bottom] = [this.#tops[place], this.#tops[place + 1]];
    const margin = Math.min(120, clientHeight / 4);
    if (top >= scrollTop + margin && bottom <= scrollTop + clientHeight - margin) return;
    this.scroll.scrollTop = Math.max(0, top - clientHeight / 3);
  }

  leaveFollow() {
    if (!this.playing || !this.following) return;
    this.following = false;
    this.onFollow?.();
  }

  /** Mark the word that is spoken at `time`. */
  speakAt(time, playing) {
    this.playing = playing;
    const segment = this.#segments[this.#rowAtTime(time)];
    if (!segment) return;
    if (playing && segment.key !== this.current && !this.editing) {
      this.choose(segment.key, { scroll: this.following });
    }
    const node = this.nodeOf(segment.key);
    const place = segment.words.length
      ? piecesOf(segment).findLastIndex((piece) => piece.start !== null && piece.start <= time)
      : -1;
    const span = place >= 0 ? node?.querySelector(`[data-piece="${place}"]`) : null;
    if (span === this.#spoken) return;
    this.#spoken?.classList.remove("spoken");
    span?.classList.add("spoken");
    this.#spoken = span;
  }

  #rowAtTime(time) {
    let [low, high] = [0, this.#segments.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#segments[middle].start <= time) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Point at one word; null takes the pointer away. */
  point(key, piece) {
    this.list.querySelector(".pointed")?.classList.remove("pointed");
    if (key === null) return;
    const node = this.nodeOf(key);
    (node?.querySelector(`[data-piece="${piece}"]`) ?? node?.querySelector(".line-text"))?.classList.add("pointed");
  }

  #click(event) {
    const row = event.target.closest(".line:not(.editing)");
    const segment = row && this.#segments[this.rowOf(Number(row.dataset.key))];
    if (!segment) return;
    if (event.target.closest(".line-edit")) return this.actions.edit(segment);
    if (getSelection().type === "Range" && event.target.closest(".line-text")) return;
    const place = event.target.closest(".w")?.dataset.piece;
    const piece = place === undefined ? null : piecesOf(segment)[place];
    this.choose(segment.key, { scroll: false });
    this.actions.seek(piece?.start ?? segment.start, segment);
  }

  #doubleClick(event) {
    const row = event.target.closest(".line:not(.editing)");
    if (!row || !event.target.closest(".line-text") || !this.actions.edit) return;
    getSelection().removeAllRanges();
    const place = event.target.closest(".w")?.dataset.piece ?? null;
    this.actions.edit(this.#segments[this.rowOf(Number(row.dataset.key))], place);
  }
}

function word(piece, place) {
  const style = ["w", doubtOf(piece)].filter(Boolean).join(" ");
  const bare = piece.text.trimEnd();
  const percent = piece.probability === null ? null : `${Math.round(100 * piece.probability)} %`;
  const span = h("span", { class: style, data: { piece: place }, title: doubtOf(piece) ? percent : null }, bare);
  return [span, piece.text.slice(bare.length)];
}
