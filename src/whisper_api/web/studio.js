// One transcript: while it is made (#/task/ID) and afterwards (#/t/ID).

import * as api from "./api.js";
import { Transcript } from "./document.js";
import { debounce, h, show, write } from "./dom.js";
import { count, nextDoubt, piecesOf } from "./doubts.js";
import { Editor } from "./editor.js";
import { follow } from "./events.js";
import { listen } from "./keys.js";
import { Lines } from "./lines.js";
import { fields } from "./options.js";
import { Player } from "./player.js";
import { queue } from "./queue.js";
import { Saver } from "./saver.js";
import { Frame } from "./studio-frame.js";
import { clock, languageName, t, when } from "./text.js";
import { sure, toast } from "./ui.js";

/** Show it; the returned function leaves it. */
export async function enter(view, { kind, id }) {
  const studio = new Studio(view);
  if (kind === "task") studio.openTask(id);
  else studio.openRecord(id);
  return () => studio.leave();
}

class Studio {
  constructor(view) {
    this.doc = new Transcript();
    this.record = null;
    this.task = null;
    this.editor = null;
    this.pointer = { row: -1, piece: -1 };
    this.gone = new AbortController();
    this.frame = new Frame(view, this);
    this.player = new Player((time, playing) => this.lines?.speakAt(time, playing));
    this.lines = new Lines(this.frame.scroll, {
      seek: (time) => this.seek(time),
      edit: (segment, piece) => this.edit(segment, piece),
    });
    this.frame.complete(this);
    this.lines.onPaint = () => this.frame.finder.paint();
    this.lines.onFollow = () => show(this.frame.follow, !this.lines.following);
    this.countDoubts = debounce(150, () => this.frame.showDoubts(count(this.doc.segments)));
    this.doc.addEventListener("change", (event) => this.#changed(event.detail));
    this.stopKeys = listen(this.#keys());
    this.warn = (event) => this.saver?.unsaved && event.preventDefault();
    addEventListener("beforeunload", this.warn);
  }

  async leave() {
    this.closeEditor();
    this.gone.abort();
    this.stopKeys();
    removeEventListener("beforeunload", this.warn);
    this.frame.finder.close();
    this.player.close();
    this.lines.close();
    await this.saver?.flush();
    this.frame.clear();
  }

  // --- while it is made ---------------------------------------------------------------------

  async openTask(id) {
    const item = queue.find(id);
    this.options = item?.options ?? fields();
    this.lines.stick = true;
    this.frame.waiting();
    try {
      this.#takeTask(await api.getTask(id));
      if (item?.file) this.player.useFile(item.file);
      else this.player.usePath(api.taskAudio(id));
      this.#draw(() => api.taskPeaks(id));
      if (this.task.status === "completed") return await this.#finish();
      await follow(api.taskEvents(id), (name, data) => this.#event(name, data), this.gone.signal);
      if (this.gone.signal.aborted) return;
      if (!["completed", "failed", "cancelled"].includes(this.task.status)) this.#takeTask(await api.getTask(id));
      if (this.task.status === "completed") await this.#finish();
    } catch (error) {
      if (!this.gone.signal.aborted) this.frame.problem(error);
    }
  }

  #event(name, data) {
    if (this.gone.signal.aborted) return;
    if (name === "segment") this.doc.append(data);
    else if (name === "progress") this.#takeTask({ ...this.task, ...data });
    else if (name === "status") this.#takeTask(data);
  }

  #takeTask(task) {
    this.task = task;
    this.frame.running(task);
    if (task.duration_seconds) this.player.setDuration(task.duration_seconds);
    if (task.status === "failed") this.frame.problem(task.error ?? {}, "studio.failed");
    if (task.status === "cancelled") this.frame.message(t("studio.cancelled"));
  }

  async #finish() {
    const { history_id: id } = this.task;
    const listening = this.player.time;
    history.replaceState(null, "", `#/t/${id}`);
    await this.openRecord(id, listening);
  }

  async cancel() {
    const item = queue.find(this.task.id);
    if (item) await queue.cancel(item);
    else await api.dropTask(this.task.id);
    location.hash = "#/";
  }

  async retry() {
    try {
      const task = await api.retryTask(this.task.id);
      this.doc.load([]);
      this.openTask(task.id);
    } catch (error) {
      toast(api.problem(error).text);
    }
  }

  // --- afterwards ---------------------------------------------------------------------------

  async openRecord(id, from = 0) {
    if (!this.doc.segments.length) this.frame.waiting();
    try {
      const record = await api.getRecord(id);
      if (this.gone.signal.aborted) return;
      this.#takeRecord(record);
      this.#hear(record, from);
    } catch (error) {
      if (!this.gone.signal.aborted) this.frame.problem(error, "studio.missing");
    }
  }

  #takeRecord(record) {
    this.record = record;
    this.lines.stick = false;
    const kept = this.frame.scroll.scrollTop;
    this.doc.load(record.segments);
    this.frame.scroll.scrollTop = kept;
    this.saver ??= new Saver(record.id, () => this.doc.toJson(), this.frame.saved);
    this.frame.done(record, this.#meta(record));
    this.player.setDuration(record.duration_seconds);
    if (!record.segments.length) this.frame.message(t("studio.silence"), t("studio.silenceHint"));
  }

  #meta({ created_at: at, duration_seconds: duration, language, model, task }) {
    const spoken = language ? languageName(language) : "";
    const target = task === "translate" ? ` → ${languageName("en")}` : "";
    return [clock(duration), spoken + target, model, when(at)];
  }

  async #hear(record, from) {
    if (!record.has_audio) {
      if (!this.player.audio.src) this.player.none(t("player.none"));
      return;
    }
    if (!this.player.playing) {
      if (from) this.player.seek(from);
      this.player.usePath(api.audioPath(record.id));
    }
    await this.#draw(() => api.peaks(record.id));
  }

  async #draw(peaks) {
    try {
      const picture = await peaks();
      if (!this.gone.signal.aborted) this.player.wave.set(picture);
    } catch {
      // it can be heard without its picture
    }
  }

  // --- moving about -------------------------------------------------------------------------

  seek(time) {
    this.player.seek(time);
    this.follow();
  }

  follow() {
    this.lines.following = true;
    show(this.frame.follow, false);
    if (this.player.playing && this.lines.current) this.lines.reveal(this.lines.current);
  }

  /** To the segment before or after the chosen one. */
  step(by) {
    const { segments } = this.doc;
    if (!segments.length) return;
    const at = this.lines.rowOf(this.lines.current);
    const next = segments[Math.max(0, Math.min(segments.length - 1, at < 0 ? 0 : at + by))];
    this.lines.choose(next.key);
    this.player.seek(next.start);
  }

  nextDoubt() {
    const row = this.lines.rowOf(this.lines.current);
    const from = this.pointer.row === row ? this.pointer : { row, piece: -1 };
    const found = nextDoubt(this.doc.segments, from);
    if (!found) return toast(t("studio.doubtful", { count: 0 }), { seconds: 2 });
    this.pointer = found;
    const segment = this.doc.segments[found.row];
    this.lines.choose(segment.key);
    this.lines.point(segment.key, found.piece);
    const start = piecesOf(segment)[found.piece]?.start ?? segment.start;
    this.player.seek(Math.max(segment.start, start - 0.3));
    const word = piecesOf(segment)[found.piece]?.text.trim() ?? segment.text;
    write(this.frame.spoken, word);
  }

  // --- mending ------------------------------------------------------------------------------

  edit(segment, piece = null) {
    if (!this.record || !segment) return;
    this.closeEditor();
    const { pointer } = this;
    const pointed = this.doc.segments[pointer.row]?.key === segment.key ? pointer.piece : null;
    const actions = {
      close: (how) => this.closeEditor(how),
      play: () => this.player.toggle(),
      moved: (by) => this.#editNext(by),
      grown: () => this.lines.remeasure(segment.key),
    };
    const { duration_seconds: duration } = this.record;
    this.editor = new Editor(this.doc, segment, piece ?? pointed, duration, actions);
    this.lines.editing = { key: segment.key, node: this.editor.node };
    this.lines.choose(segment.key);
    this.editor.focus();
  }

  editCurrent() {
    const { segments } = this.doc;
    this.edit(segments[Math.max(0, this.lines.rowOf(this.lines.current))]);
  }

  closeEditor({ discard = false } = {}) {
    const { editor } = this;
    if (!editor) return;
    this.editor = null;
    if (!discard) editor.commit();
    editor.closed = true;
    this.lines.editing = null;
    this.pointer = { row: -1, piece: -1 };
    this.lines.remeasure(editor.key);
    this.lines.paint();
    this.lines.nodeOf(editor.key)?.querySelector(".line-time")?.focus({ preventScroll: true });
  }

  #editNext(by) {
    const at = this.doc.indexOf(this.editor.key) + by;
    this.closeEditor();
    if (this.doc.segments[at]) this.edit(this.doc.segments[at]);
  }

  undo() {
    this.#stepTo(this.doc.undo());
  }

  redo() {
    this.#stepTo(this.doc.redo());
  }

  #stepTo(at) {
    const segment = at === null ? null : this.doc.segments[Math.min(at, this.doc.segments.length - 1)];
    if (segment) this.lines.choose(segment.key);
  }

  #changed({ fresh }) {
    if (this.editor && this.doc.indexOf(this.editor.key) < 0) {
      this.editor.closed = true;
      this.lines.editing = this.editor = null;
    }
    this.lines.set(this.doc.segments);
    this.countDoubts();
    this.frame.showUndo(this.doc);
    if (fresh) return;
    this.saver?.changed({ segments: true });
    this.frame.showEdited(true);
  }

  rename(title) {
    if (!title.trim() || title.trim() === this.record.title) return;
    this.record.title = title.trim();
    this.saver.changed({ title: title.trim() });
  }

  async revert() {
    if (!(await sure(t("studio.revertSure"), t("studio.revert")))) return;
    this.closeEditor({ discard: true });
    this.saver.forget();
    await this.saver.flush();
    try {
      await api.revertRecord(this.record.id);
      this.#takeRecord(await api.getRecord(this.record.id));
      toast(t("studio.reverted"));
    } catch (error) {
      toast(api.problem(error).text);
    }
  }

  async export() {
    this.closeEditor();
    const { exportOne } = await import("./exporter.js");
    await exportOne(this.record ?? { ...this.task, title: this.task.name }, this.doc.segments);
  }

  #keys() {
    const undo = { "Ctrl+z": () => this.undo(), "Ctrl+Shift+z": () => this.redo(), "Ctrl+y": () => this.redo() };
    const find = () => this.frame.finder.open();
    return {
      ...undo,
      Space: () => this.player.toggle(),
      ArrowLeft: () => this.player.skip(-5),
      ArrowRight: () => this.player.skip(5),
      ArrowUp: () => this.step(-1),
      ArrowDown: () => this.step(1),
      "[": () => this.player.faster(-1),
      "]": () => this.player.faster(1),
      Enter: () => this.editCurrent(),
      e: () => this.editCurrent(),
      d: () => this.nextDoubt(),
      x: () => this.record && this.export(),
      "/": find,
      "Ctrl+f": find,
      "Ctrl+s": () => this.saver?.flush(),
    };
  }
}
