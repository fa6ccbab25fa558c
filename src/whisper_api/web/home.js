// The first view: adding recordings, those on their way, the latest transcripts.

import { history, problem } from "./api.js";
import { $, debounce, h, show, write } from "./dom.js";
import { icon } from "./icons.js";
import { take, takeSample } from "./intake.js";
import { paintOptions } from "./options.js";
import { address } from "./place.js";
import { queue } from "./queue.js";
import { showQueue } from "./queue-view.js";
import { bytes, clock, onTongue, t, when } from "./text.js";
import { toast } from "./ui.js";

let wired = false;
let server = null;

export function enter(view, context) {
  server = context.server;
  if (!wired) wire();
  wired = true;
  paint();
  queue.watch();
  showRecent();
  const onServer = () => paint();
  const onOver = debounce(800, showRecent);
  document.addEventListener("server", onServer);
  queue.addEventListener("over", onOver);
  const stopTongue = onTongue(paint);
  const stopQueue = showQueue({
    section: $("#queue"),
    list: $("#queue-list"),
    sum: $("#queue-sum"),
    cancelAll: $("#queue-cancel"),
    clear: $("#queue-clear"),
  });
  return () => {
    document.removeEventListener("server", onServer);
    queue.removeEventListener("over", onOver);
    onOver.cancel();
    stopTongue();
    stopQueue();
  };
}

function paint() {
  paintOptions($("#options"), server);
  write($("#base"), `${address}/v1`);
  const touch = matchMedia("(pointer: coarse)").matches;
  write($(".drop-title"), t(touch ? "drop.touch" : "drop.title"));
  const limits = server.capabilities?.limits;
  write($("#limits"), limits ? t("drop.limits", { size: bytes(limits.max_file_bytes) }) : "\u00a0");
  show($("#sample"), server.capabilities?.features?.sample ?? true);
}

async function showRecent() {
  let records = [];
  try {
    records = (await history({ limit: 5, order: "desc" })).data;
  } catch (error) {
    if (error.status !== 401) records = [];
  }
  show($("#recent"), records.length > 0);
  $("#recent-list").replaceChildren(...records.map(recentRow));
}

function recentRow(record) {
  return h(
    "li",
    {},
    h("span", { class: "mark" }, icon("text")),
    h(
      "div",
      { class: "row-main" },
      h("a", { class: "row-title", href: `#/t/${record.id}` }, record.title || record.name),
      h("span", { class: "row-sub" }, record.preview || t("history.noText")),
    ),
    h("div", { class: "row-side" }, clock(record.duration_seconds), h("br"), when(record.created_at)),
  );
}

// --- wiring -------------------------------------------------------------------------------------

function wire() {
  const file = $("#file");
  const pick = () => file.click();
  $("#pick").addEventListener("click", (event) => (event.stopPropagation(), pick()));
  $(".drop-call").addEventListener("click", pick);
  file.addEventListener("click", (event) => event.stopPropagation());
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = "";
    if (files.length) take(files, server);
  });
  $("#sample").addEventListener("click", () => attempt(() => takeSample(server)));
  $("#options").addEventListener("submit", (event) => event.preventDefault());
  wireUrl();
  wireRecorder();
}

function wireUrl() {
  const [button, form, field] = [$("#from-url"), $("#url-form"), $("#url")];
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    show(form, form.hidden);
    button.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) field.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take([{ url: field.value.trim() }], server);
    field.value = "";
    show(form, false);
    button.setAttribute("aria-expanded", "false");
  });
}

function wireRecorder() {
  const button = $("#record");
  button.addEventListener("click", () =>
    attempt(async () => {
      const { record } = await import("./recorder.js");
      button.disabled = true;
      try {
        const made = await record($("#recorder"));
        if (made) take([made], server);
      } finally {
        button.disabled = false;
        button.focus();
      }
    }),
  );
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    toast(error.words ?? problem(error).text);
  }
}
