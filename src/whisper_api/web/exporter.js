// Taking transcripts away: one in any format with a preview, or many in one zip.

import { getRecord } from "./api.js";
import { download, h, show, write } from "./dom.js";
import { recall, remember } from "./prefs.js";
import { FORMATS, LAYOUT, render } from "./subtitles.js";
import { t } from "./text.js";
import { copyText, dialog, toast } from "./ui.js";
import { zip } from "./zip.js";

const USUAL = { format: "txt", times: false, paragraphs: true, anew: false, ...LAYOUT };
const LIMITS = { width: [10, 200], lines: [1, 4], seconds: [1, 60] };
const PREVIEWED = 40;

/** `record` with `segments` as they are now. */
export function exportOne(record, segments) {
  return dialog(t("export.title"), (close) => {
    const form = new ExportForm(() => form.preview.textContent = written().slice(0, 4000));
    const written = () =>
      render(form.format, segments.slice(0, PREVIEWED), record, form.options);
    const whole = () => render(form.format, segments, record, form.options);
    const name = fileName(record);
    const save = () => {
      download(whole(), `${name}.${form.format}`, FORMATS[form.format].type);
      close();
    };
    const saveAll = () => {
      const files = allFormats(record, segments, form.options, name);
      download(zip(files), `${name}.zip`);
      close();
    };
    form.changed();
    return [
      form.node,
      h(
        "div",
        { class: "dialog-foot" },
        h("button", { type: "button", class: "soft", onclick: saveAll }, t("export.zip")),
        h("button", { type: "button", class: "soft", onclick: () => copyText(whole()) }, t("copy")),
        h("button", { type: "button", class: "primary", onclick: save }, t("export.save")),
      ),
    ];
  });
}

/** Several records of the history, fetched one after another, into one zip. */
export function exportMany(records) {
  return dialog(t("export.selected", { count: records.length }), (close) => {
    const form = new ExportForm(() => null);
    show(form.preview, false);
    const said = h("p", { class: "quiet small", role: "status" });
    const buttons = [
      h("button", { type: "button", class: "soft", onclick: () => go(Object.keys(FORMATS)) }, t("export.zip")),
      h("button", { type: "button", class: "primary", onclick: () => go([form.format]) }, t("export.save")),
    ];
    const go = async (formats) => {
      for (const button of buttons) button.disabled = true;
      const files = await collect(records, formats, form.options, said);
      if (files.length) download(zip(files), "transcripts.zip");
      close();
    };
    form.changed();
    return [form.node, said, h("div", { class: "dialog-foot" }, buttons)];
  });
}

async function collect(records, formats, options, said) {
  const files = [];
  for (const [done, { id, title }] of records.entries()) {
    write(said, t("export.collecting", { done, count: records.length }));
    try {
      const record = await getRecord(id);
      const segments = record.segments.map((s) => ({ ...s, text: s.text.trim(), words: s.words ?? [] }));
      for (const format of formats) {
        const content = render(format, segments, record, options);
        files.push({ name: `${fileName(record)}.${format}`, content });
      }
    } catch {
      toast(t("export.failed", { name: title }));
    }
  }
  return files;
}

const allFormats = (record, segments, options, name) =>
  Object.keys(FORMATS).map((format) => ({
    name: `${name}.${format}`,
    content: render(format, segments, record, options),
  }));

export function fileName({ title, name }) {
  const base = (title || name || "transcript").replace(/\.[a-z0-9]{2,4}$/i, "");
  return base.replace(/[\u0000-\u001f\\/:*?"<>|]+/g, " ").trim().slice(0, 100) || "transcript";
}

class ExportForm {
  constructor(onChange) {
    this.onChange = onChange;
    this.now = { ...USUAL, ...recall("export", {}) };
    if (!(this.now.format in FORMATS)) this.now.format = "txt";
    this.preview = h("pre", { class: "preview", tabindex: 0, "aria-label": t("export.preview") });
    this.text = h("div", {}, this.#tick("times"), this.#tick("paragraphs"));
    this.numbers = h("div", { class: "layout" }, Object.keys(LIMITS).map((name) => this.#number(name)));
    this.subtitles = h("div", {}, this.#tick("anew", "layout"), this.numbers);
    const options = h("div", { class: "export-options" }, this.text, this.subtitles);
    this.node = h("form", { onsubmit: (event) => event.preventDefault() }, this.#formats(), options, this.preview);
  }

  get format() {
    return this.now.format;
  }

  get options() {
    const { times, paragraphs, anew, width, lines, seconds } = this.now;
    return { times, paragraphs, layout: anew ? { width, lines, seconds } : null };
  }

  changed() {
    const { format, anew } = this.now;
    show(this.text, format === "txt");
    show(this.subtitles, format === "srt" || format === "vtt");
    show(this.numbers, anew);
    remember("export", this.now);
    this.onChange();
  }

  #formats() {
    const radios = Object.keys(FORMATS).map((format) => {
      const about = { type: "radio", name: "format", value: format, checked: format === this.now.format };
      const radio = h("input", { ...about, onchange: () => this.#set("format", format) });
      return h("label", {}, radio, h("strong", {}, format), h("span", {}, t(`export.${format}`)));
    });
    return h("fieldset", { class: "formats" }, h("legend", { class: "sr" }, t("export.format")), radios);
  }

  #tick(name, words = name) {
    const change = (event) => this.#set(name, event.target.checked);
    const box = h("input", { type: "checkbox", name, checked: this.now[name], onchange: change });
    return h("label", { class: "tick" }, box, t(`export.${words}`));
  }

  #number(name) {
    const [min, max] = LIMITS[name];
    const change = ({ target }) => {
      const value = Math.min(max, Math.max(min, Math.round(Number(target.value)) || USUAL[name]));
      if (target.value !== String(value)) target.value = value;
      this.#set(name, value);
    };
    const field = h("input", { type: "number", name, min, max, value: this.now[name], onchange: change });
    return h("label", { class: "field" }, h("span", {}, t(`export.${name}`)), field);
  }

  #set(name, value) {
    this.now[name] = value;
    this.changed();
  }
}
