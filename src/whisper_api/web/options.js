// What is asked of the server for every new recording; remembered in this browser.

import { $, h } from "./dom.js";
import { recall, remember } from "./prefs.js";
import { languageName, t } from "./text.js";

const DEFAULTS = {
  model: "",
  language: "auto",
  task: "transcribe",
  prompt: "",
  keywords: "",
  words: true,
  preprocess: false,
};

export const chosen = () => ({ ...DEFAULTS, ...recall("options", {}) });

export function choose(change) {
  remember("options", { ...chosen(), ...change });
}

/** The fields of a request, as the API names them. */
export function fields() {
  const { model, language, task, prompt, keywords, words, preprocess } = chosen();
  const list = keywords.split(/[,;\n]/).map((word) => word.trim()).filter(Boolean);
  return {
    response_format: "verbose_json",
    timestamp_granularities: words ? ["word", "segment"] : ["segment"],
    ...(model ? { model } : {}),
    ...(language ? { language } : {}),
    ...(task === "translate" ? { task } : {}),
    ...(prompt.trim() ? { prompt: prompt.trim() } : {}),
    ...(list.length ? { keywords: list } : {}),
    ...(preprocess ? { chunking_strategy: "auto" } : {}),
  };
}

/** What a task or a record was made with, as the fields of a request that asks for the same. */
export function asFields(options) {
  if (!("word_timestamps" in options) && !("vad_filter" in options)) return options;
  const { word_timestamps: words, timestamp_granularities: asked } = options;
  const { language, prompt, keywords, temperature, beam_size: beam, task, loudness } = options;
  return {
    response_format: "verbose_json",
    timestamp_granularities: asked ?? (words ? ["word", "segment"] : ["segment"]),
    ...(language ? { language } : {}),
    ...(task === "translate" ? { task } : {}),
    ...(prompt ? { prompt } : {}),
    ...(keywords?.length ? { keywords } : {}),
    ...(temperature ? { temperature } : {}),
    ...(beam ? { beam_size: beam } : {}),
    ...(loudness ? { chunking_strategy: "auto" } : {}),
  };
}

/** Fill the form once more: languages and models depend on the server, words on the tongue. */
export function paintOptions(form, server) {
  const now = chosen();
  const open = $("details", form)?.open ?? false;
  const field = (label, control) => h("label", { class: "field" }, h("span", {}, label), control);
  const extra = [now.prompt, now.keywords, !now.words, now.preprocess].filter(Boolean).length;
  const more = t("options.more") + (extra ? ` · ${t("options.count", { count: extra })}` : "");
  form.replaceChildren(
    h(
      "div",
      { class: "option-row" },
      field(t("options.language"), select("language", languages(server), now)),
      field(t("options.model"), select("model", models(server), now)),
      field(t("options.task"), select("task", tasks(server), now)),
    ),
    h(
      "details",
      { open },
      h("summary", {}, more),
      h(
        "div",
        {},
        field(t("options.prompt"), area("prompt", t("options.promptHint"), now)),
        field(t("options.keywords"), line("keywords", t("options.keywordsHint"), now)),
        tick("words", t("options.words"), now),
        tick("preprocess", t("options.preprocess"), now),
      ),
    ),
  );
}

function select(name, items, now) {
  const control = h("select", { name, onchange: () => choose({ [name]: control.value }) });
  control.append(...items.map(([value, label]) => new Option(label, value)));
  control.value = now[name];
  if (control.selectedIndex < 0) control.selectedIndex = 0;
  return control;
}

function area(name, hint, now) {
  const about = { name, rows: 2, placeholder: hint, value: now[name], maxlength: 20_000 };
  return h("textarea", { ...about, oninput: (event) => choose({ [name]: event.target.value }) });
}

function line(name, hint, now) {
  const about = { name, placeholder: hint, value: now[name], autocomplete: "off" };
  return h("input", { ...about, oninput: (event) => choose({ [name]: event.target.value }) });
}

function tick(name, label, now) {
  const change = (event) => choose({ [name]: event.target.checked });
  const box = h("input", { type: "checkbox", name, checked: now[name], onchange: change });
  return h("label", { class: "tick" }, box, label);
}

function languages(server) {
  const known = server.capabilities?.languages ?? [];
  const named = known.map(({ code, name }) => [code, languageName(code, name)]);
  named.sort((a, b) => a[1].localeCompare(b[1]));
  return [["auto", t("options.detect")], ...named];
}

function tasks(server) {
  const translates = server.capabilities?.features?.translations ?? true;
  const items = [["transcribe", t("options.transcribe")]];
  return translates ? [...items, ["translate", t("options.translate")]] : items;
}

function models(server) {
  const all = server.capabilities?.models ?? [];
  const usual = server.capabilities?.default_model ?? "";
  const others = all.filter((name) => name !== usual && !ALIASES.test(name));
  const first = ["", usual ? t("options.default", { model: usual }) : t("options.model")];
  return [first, ...others.map((name) => [name, name])];
}

/** OpenAI's names mean the default model here. */
const ALIASES = /^(whisper-1|gpt-4o.*|gpt-.*transcribe.*)$/;
