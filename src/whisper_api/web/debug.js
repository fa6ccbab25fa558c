// For developers: the request as code, the server's answer, where the time went.

import { getTask } from "./api.js";
import { download, h } from "./dom.js";
import { requestAs } from "./snippets.js";
import { bytes, t } from "./text.js";
import { copyText, labelled } from "./ui.js";

const SHOWN = 60_000;
const LANGUAGES = { curl: "curl", python: "Python", javascript: "JavaScript" };

/** The tab's content. `task` and `record` may be missing. */
export function debugView({ task, record, options }) {
  const name = record?.name ?? task?.name ?? "audio.wav";
  return h(
    "div",
    { class: "debug" },
    requestPart(name, { ...options, ...(record ? { model: record.model } : {}) }),
    timingsPart(record),
    answerPart(task, record),
  );
}

function requestPart(name, options) {
  const code = h("pre", { tabindex: 0, "aria-label": t("debug.request") });
  const choose = (language) => {
    code.textContent = requestAs(language, name, options);
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
  };
  const buttons = Object.entries(LANGUAGES).map(([language, label]) =>
    h("button", { type: "button", data: { language }, onclick: () => choose(language) }, label),
  );
  choose("curl");
  return h(
    "section",
    {},
    h(
      "div",
      { class: "block-head" },
      h("h2", {}, t("debug.request")),
      h("div", { class: "segmented end", role: "group", "aria-label": t("debug.language") }, buttons),
      labelled("copy", t("copy"), () => copyText(code.textContent)),
    ),
    code,
  );
}

function timingsPart(record) {
  const head = h("h2", {}, t("debug.timings"));
  const rows = Object.entries(record?.timings ?? {}).filter(([name]) => name.endsWith("_seconds"));
  if (!rows.length) return h("section", {}, head, h("p", { class: "quiet" }, t("debug.noTimings")));
  const { processing_seconds: work } = record.timings;
  const factor = work ? (record.duration_seconds / work).toFixed(1) : null;
  const row = ([name, seconds]) => h("tr", {}, h("th", { scope: "row" }, stageName(name)), h("td", {}, seconds.toFixed(3)));
  return h(
    "section",
    {},
    head,
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("debug.stage")), h("th", { scope: "col" }, t("debug.seconds")))),
      h("tbody", {}, rows.map(row)),
    ),
    factor ? h("p", { class: "quiet small" }, t("debug.speed", { factor })) : null,
  );
}

function stageName(name) {
  const stage = name.replace(/_seconds$/, "");
  const words = t(`debug.stage.${stage}`);
  return words.startsWith("debug.") ? stage.replaceAll("_", " ") : words;
}

function answerPart(task, record) {
  const content = record ?? task ?? {};
  const whole = JSON.stringify(content, null, 2);
  const code = h("pre", { tabindex: 0, "aria-label": t("debug.answer") }, whole.slice(0, SHOWN));
  const save = () => download(whole, "answer.json", "application/json");
  const note = h("p", { class: "quiet small" }, t("debug.shortened", { size: bytes(whole.length) }));
  const more = task ? labelled("retry", "GET /v1/tasks/{id}", () => refresh(task.id, code)) : null;
  return h(
    "section",
    {},
    h(
      "div",
      { class: "block-head" },
      h("h2", {}, t("debug.answer")),
      h("span", { class: "end" }),
      more,
      labelled("copy", t("copy"), () => copyText(whole)),
      labelled("save", t("export.save"), save),
    ),
    code,
    whole.length > SHOWN ? note : null,
  );
}

async function refresh(id, code) {
  code.textContent = JSON.stringify(await getTask(id), null, 2).slice(0, SHOWN);
}
