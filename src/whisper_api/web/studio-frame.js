// What stands around the text of a transcript: title, tools, tabs, states.

import { problem } from "./api.js";
import { h, show, write } from "./dom.js";
import { Finder } from "./finder.js";
import { icon } from "./icons.js";
import { asFields, fields } from "./options.js";
import { words } from "./queue-view.js";
import { t } from "./text.js";
import { copyText, iconButton, labelled } from "./ui.js";

const OVER = ["completed", "failed", "cancelled"];

export class Frame {
  constructor(view, studio) {
    this.view = view;
    this.studio = studio;
    this.scroll = h("div", { class: "scroll" });
    this.saved = h("span", { role: "status" });
    this.edited = h("span", { class: "tag" }, t("studio.edited"));
    this.spoken = h("span", { class: "sr", role: "status", "aria-live": "assertive" });
    show(this.edited, false);
  }

  /** Build the rest, which needs the player and the lines. */
  complete({ doc, lines, player }) {
    const go = (key) => lines.choose(key);
    this.finder = new Finder(doc, lines, { go, close: () => this.findButton.focus() });
    this.follow = labelled("down", t("studio.follow"), () => this.studio.follow(), { class: "soft follow", hidden: true });
    this.state = h("div", { class: "state", hidden: true });
    const inside = [this.scroll, this.state, this.follow, this.spoken];
    const about = { role: "tabpanel", id: "panel-text", "aria-labelledby": "tab-text" };
    this.panel = h("div", { class: "panel", ...about }, inside);
    this.debug = h("div", { class: "panel scroll", role: "tabpanel", id: "panel-debug", "aria-labelledby": "tab-debug", hidden: true });
    this.view.replaceChildren(this.#head(), this.#bar(), this.#run(), this.finder.node, this.panel, this.debug, player.node);
    this.showUndo(doc);
  }

  clear() {
    this.view.replaceChildren();
  }

  // --- parts ----------------------------------------------------------------------------------

  #head() {
    const { studio } = this;
    const rename = () => studio.rename(this.title.value);
    this.title = h("input", { id: "title", "aria-label": t("studio.title"), autocomplete: "off", readonly: true, onchange: rename });
    this.title.addEventListener("keydown", (event) => event.key === "Enter" && this.title.blur());
    this.meta = h("div", { class: "studio-meta" });
    this.copy = labelled("copy", t("copy"), () => copyText(studio.doc.segments.map((s) => s.text).join(" ")));
    this.take = h("button", { type: "button", class: "primary", onclick: () => studio.export() }, icon("save", 18), h("span", { class: "label" }, t("export")));
    this.copy.ariaLabel = t("copy");
    this.take.ariaLabel = t("export");
    const back = h("a", { class: "button quiet-button", href: "#/", title: t("studio.back"), "aria-label": t("studio.back") }, icon("back"));
    const heading = h("h1", { class: "studio-title" }, this.title);
    const acts = h("div", { class: "studio-acts" }, this.copy, this.take);
    return h("div", { class: "studio-head" }, back, h("div", { class: "grow" }, heading, this.meta), acts);
  }

  #bar() {
    const { studio } = this;
    this.tabs = ["text", "debug"].map((name, place) => {
      const about = { id: `tab-${name}`, "aria-controls": `panel-${name}`, role: "tab", type: "button" };
      const label = t(place ? "studio.debug" : "studio.transcript");
      const parts = [icon(place ? "code" : "text", 18), h("span", { class: "label" }, label)];
      return h("button", { ...about, "aria-label": label, onclick: () => this.choose(name) }, parts);
    });
    const tablist = h("div", { class: "studio-tabs", role: "tablist", "aria-label": t("studio.tabs") }, this.tabs);
    tablist.addEventListener("keydown", (event) => this.#tabKey(event));
    this.doubts = h("button", { type: "button", class: "quiet-button doubts", title: t("studio.nextDoubtful"), onclick: () => studio.nextDoubt(), hidden: true }, icon("flag", 18), h("span", { class: "words" }), h("span", { class: "number", "aria-hidden": "true" }));
    this.undo = iconButton("undo", t("undo"), () => studio.undo());
    this.redo = iconButton("redo", t("redo"), () => studio.redo());
    this.revert = iconButton("history", t("studio.revert"), () => studio.revert(), { hidden: true });
    this.findButton = iconButton("search", t("search"), () => this.finder.open());
    const tools = [this.doubts, this.undo, this.redo, this.revert, this.findButton];
    const bar = h("div", { class: "studio-bar" }, tablist, h("div", { class: "end" }, tools));
    this.choose("text");
    return bar;
  }

  #run() {
    this.fill = h("i");
    const about = { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": t("studio.running") };
    this.track = h("div", { class: "bar", ...about }, this.fill);
    this.runWords = h("span", { class: "run-words" });
    const cancel = h("button", { type: "button", class: "link", onclick: () => this.studio.cancel() }, t("cancel"));
    this.run = h("div", { class: "run", hidden: true }, this.runWords, this.track, cancel);
    return this.run;
  }

  #tabKey(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    const other = this.tabs.find((tab) => tab.ariaSelected !== "true");
    this.choose(other.id.slice(4));
    other.focus();
  }

  async choose(name) {
    for (const tab of this.tabs) {
      const chosen = tab.id === `tab-${name}`;
      tab.ariaSelected = String(chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    if (!this.panel) return;
    show(this.panel, name === "text");
    show(this.debug, name === "debug");
    if (name !== "debug") return this.studio.lines.paint();
    const { debugView } = await import("./debug.js");
    const { task, record } = this.studio;
    const options = asFields(record?.options ?? task?.options ?? this.studio.options ?? fields());
    this.debug.replaceChildren(debugView({ task, record, options }));
  }

  // --- states ---------------------------------------------------------------------------------

  waiting() {
    const dots = h("div", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    this.state.replaceChildren(dots, h("p", {}, t("studio.waiting")));
    show(this.state, true);
  }

  message(title, hint = "", action = null, kind = "") {
    const nodes = [h("h2", { class: kind }, title), hint ? h("p", {}, hint) : null, action];
    this.state.replaceChildren(...nodes.filter(Boolean));
    show(this.state, true);
  }

  problem(error, title = "error.other") {
    const { text, detail } = problem(error);
    const more = text.includes(detail) ? "" : ` ${t("error.details", { detail })}`;
    const { task } = this.studio;
    const retry = task?.status === "failed" ? labelled("retry", t("queue.retry"), () => this.studio.retry()) : null;
    const home = h("a", { class: "button soft", href: "#/" }, t("studio.back"));
    this.message(t(title), text + more, retry ?? home, "bad");
    this.state.setAttribute("role", "alert");
    show(this.run, false);
  }

  running(task) {
    const over = OVER.includes(task.status);
    if (this.title.value !== task.name) this.title.value = task.name;
    document.title = over ? task.name : `${Math.round(task.progress ?? 0)} % · ${task.name}`;
    show(this.run, !over);
    const share = (task.progress ?? 0) / 100;
    this.fill.style.transform = `scaleX(${share})`;
    this.track.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    write(this.runWords, words({ state: task.status, task, share: 1, error: task.error }));
    this.copy.disabled = this.take.disabled = true;
  }

  done(record, meta) {
    document.title = record.title || record.name;
    show(this.run, false);
    show(this.state, false);
    this.state.removeAttribute("role");
    this.title.value = record.title || record.name;
    this.title.readOnly = false;
    this.meta.replaceChildren(...meta.map((part) => h("span", {}, part)), this.edited, this.saved);
    this.copy.disabled = this.take.disabled = !record.segments.length;
    this.showEdited(record.edited);
    if (!this.debug.hidden) this.choose("debug");
  }

  showEdited(edited) {
    show(this.edited, edited);
    show(this.revert, edited);
  }

  showUndo(doc) {
    this.undo.disabled = !doc.canUndo;
    this.redo.disabled = !doc.canRedo;
    if (doc.segments.length && !this.state.hidden) show(this.state, false);
  }

  showDoubts(count) {
    show(this.doubts, count > 0);
    write(this.doubts.querySelector(".words"), t("studio.doubtful", { count }));
    write(this.doubts.querySelector(".number"), String(count));
  }
}
