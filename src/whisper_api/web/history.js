// The history: search, filters, opening, renaming, deleting, taking away.

import * as api from "./api.js";
import { $, debounce, h, show } from "./dom.js";
import { clock, languageName, t, when } from "./text.js";
import { empty, iconButton, labelled, sure, toast } from "./ui.js";

const PAGE = 50;

export function enter(view, { server }) {
  const shelf = new Shelf(view, server);
  shelf.read();
  return () => shelf.leave();
}

class Shelf {
  #turn = 0;

  constructor(view, server) {
    this.server = server;
    this.records = [];
    this.selected = new Set();
    this.search = h("input", { type: "search", id: "history-search", placeholder: t("history.search"), "aria-label": t("history.search") });
    this.filters = this.#filters();
    this.list = h("ul", { class: "rows card" });
    this.bar = h("div", { class: "selection" });
    this.rest = h("div");
    this.more = h("button", { type: "button", class: "soft more", hidden: true, onclick: () => this.read(true) }, t("history.more"));
    const head = h("div", { class: "head-row" }, h("h1", {}, t("history.title")));
    const more = h("details", {}, h("summary", {}, t("history.filters")), h("div", { class: "filters" }, this.filters.map(([, node]) => node)));
    const form = h("form", { class: "searching", role: "search", onsubmit: (event) => event.preventDefault() }, this.search, more);
    view.replaceChildren(head, form, this.bar, this.list, this.rest, this.more);
    const again = debounce(200, () => this.read());
    this.search.addEventListener("input", again);
    show(this.list, false);
    show(this.bar, false);
  }

  leave() {
    this.#turn = -1;
  }

  // --- reading ------------------------------------------------------------------------------

  async read(further = false) {
    const turn = ++this.#turn;
    const query = { limit: PAGE, order: "desc", ...this.#query() };
    if (further) query.after = this.records.at(-1).id;
    try {
      const { data, has_more: more } = await api.history(query);
      if (turn !== this.#turn) return;
      if (!further) this.selected.clear();
      this.records = further ? [...this.records, ...data] : data;
      this.#paint();
      show(this.more, more);
    } catch (error) {
      if (turn !== this.#turn) return;
      const off = error.status === 404;
      const { text } = api.problem(error);
      this.#nothing("alert", off ? t("history.off") : text, "");
    }
  }

  #query() {
    const day = (text, end) => Math.floor(new Date(`${text}T${end}`).getTime() / 1000);
    const query = { q: this.search.value.trim() };
    for (const [name, , field] of this.filters) query[name] = field.value;
    if (query.from) query.from = day(query.from, "00:00:00");
    if (query.to) query.to = day(query.to, "23:59:59");
    return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ""));
  }

  get #filtered() {
    return Object.keys(this.#query()).length > 0;
  }

  #filters() {
    const { languages = [], models = [] } = this.server.capabilities ?? {};
    const named = languages.map(({ code, name }) => [code, languageName(code, name)]);
    named.sort((a, b) => a[1].localeCompare(b[1]));
    const sources = ["task", "sync", "import"].map((name) => [name, t(`history.${name}`)]);
    return [
      this.#choice("language", named),
      this.#choice("model", models.map((name) => [name, name])),
      this.#choice("source", sources),
      this.#day("from"),
      this.#day("to"),
    ];
  }

  #choice(name, items) {
    const label = t(`history.${name}`);
    const field = h("select", { name, onchange: () => this.read() });
    field.append(new Option(t("history.any"), ""), ...items.map(([value, text]) => new Option(text, value)));
    return [name, h("label", { class: "field" }, h("span", {}, label), field), field];
  }

  #day(name) {
    const field = h("input", { type: "date", name, onchange: () => this.read() });
    return [name, h("label", { class: "field" }, h("span", {}, t(`history.${name}`)), field), field];
  }

  // --- painting -----------------------------------------------------------------------------

  #paint() {
    const any = this.records.length > 0;
    show(this.list, any);
    this.list.replaceChildren(...this.records.map((record) => this.#row(record)));
    this.#paintSelection();
    if (any) this.rest.replaceChildren();
    else if (this.#filtered) {
      const reset = h("button", { type: "button", class: "soft", onclick: () => this.#reset() }, t("history.reset"));
      this.#nothing("search", t("history.nothing"), t("history.nothingHint"), reset);
    } else {
      const go = h("a", { class: "button primary", href: "#/" }, t("history.emptyGo"));
      this.#nothing("history", t("history.empty"), t("history.emptyHint"), go);
    }
  }

  #nothing(mark, title, hint, action = null) {
    show(this.list, false);
    show(this.bar, false);
    show(this.more, false);
    this.rest.replaceChildren(empty(mark, title, hint, action));
  }

  #reset() {
    this.search.value = "";
    for (const [, , field] of this.filters) field.value = "";
    this.read();
  }

  #row(record) {
    const { id, duration_seconds: duration, language, model, created_at: at } = record;
    const title = record.title || record.name;
    const about = { type: "checkbox", "aria-label": t("history.select", { name: title }), checked: this.selected.has(id) };
    const box = h("input", { ...about, onchange: () => this.#select(id, box.checked) });
    const link = h("a", { class: "row-title", href: `#/t/${id}` }, title);
    const tag = record.edited ? h("span", { class: "tag" }, t("studio.edited")) : null;
    const details = [clock(duration), language && languageName(language), model].filter(Boolean).join(" · ");
    const main = h("div", { class: "row-main" }, link, h("span", { class: "row-sub" }, record.preview || t("history.noText")), h("span", { class: "row-sub" }, details, " ", tag));
    const acts = h(
      "div",
      { class: "row-acts" },
      iconButton("edit", t("history.rename"), () => this.#rename(record, main)),
      iconButton("trash", t("history.delete"), () => this.#delete([record])),
    );
    return h("li", {}, box, main, h("div", { class: "row-side" }, when(at)), acts);
  }

  #rename(record, main) {
    const field = h("input", { "aria-label": t("history.renameLabel"), value: record.title || record.name });
    const save = async (event) => {
      event.preventDefault();
      const title = field.value.trim();
      if (title && title !== record.title) {
        try {
          await api.saveRecord(record.id, JSON.stringify({ title }));
          record.title = title;
        } catch (error) {
          toast(api.problem(error).text);
        }
      }
      this.#paint();
    };
    const form = h("form", { class: "rename", onsubmit: save }, field, h("button", { type: "submit", class: "primary" }, t("edit.done")));
    field.addEventListener("keydown", (event) => event.key === "Escape" && this.#paint());
    main.firstChild.replaceWith(form);
    field.select();
    field.focus();
  }

  // --- several at once ----------------------------------------------------------------------

  #select(id, yes) {
    if (yes) this.selected.add(id);
    else this.selected.delete(id);
    this.#paintSelection();
  }

  #paintSelection() {
    const { size } = this.selected;
    show(this.bar, this.records.length > 0);
    const all = this.records.length > 0 && size === this.records.length;
    const toggle = () => {
      this.selected = new Set(all ? [] : this.records.map(({ id }) => id));
      this.#paint();
      $("input", this.bar).focus();
    };
    const box = h("input", { type: "checkbox", checked: all, onchange: toggle });
    box.indeterminate = size > 0 && !all;
    const words = size ? t("history.selected", { count: size }) : t("history.selectAll");
    const chosen = () => this.records.filter(({ id }) => this.selected.has(id));
    const take = async () => (await import("./exporter.js")).exportMany(chosen());
    this.bar.replaceChildren(
      h("label", { class: "tick small" }, box, words),
      h(
        "div",
        { class: "end" },
        size ? labelled("save", t("history.export"), take) : "",
        size ? labelled("trash", t("history.delete"), () => this.#delete(chosen()), { class: "soft danger" }) : "",
      ),
    );
  }

  async #delete(records) {
    const count = records.length;
    if (!(await sure(t("history.deleteSure", { count }), t("history.delete")))) return;
    let done = 0;
    for (const { id } of records) {
      try {
        await api.dropRecord(id);
        done++;
      } catch (error) {
        toast(api.problem(error).text);
        break;
      }
    }
    if (done) toast(t("history.deleted", { count: done }), { seconds: 2 });
    await this.read();
  }
}
