// Ways in for recordings: choosing, dropping (folders too), pasting, a link, the sample.

import { ApiError, request } from "./api.js";
import { $, show } from "./dom.js";
import { fields } from "./options.js";
import { queue } from "./queue.js";
import { bytes, t } from "./text.js";
import { toast } from "./ui.js";

/** Take recordings in; a single one is opened, so that its text is seen as it comes. */
export function take(sources, server) {
  if (!sources.length) return toast(t("queue.nothing"));
  const limit = server.capabilities?.limits?.max_file_bytes ?? Infinity;
  for (const source of sources) source.problem = refusal(source, limit);
  const added = queue.add(sources, fields());
  if (location.hash.startsWith("#/t")) location.hash = "#/";
  if (added.length === 1) openWhenBegun(added[0]);
}

/** What speaks against sending a file at all. */
function refusal({ size }, limit) {
  if (size === undefined) return null;
  if (size === 0) return new ApiError({ code: "audio_missing" });
  if (size <= limit) return null;
  return new ApiError({ code: "file_too_large", message: t("queue.tooLarge", { size: bytes(limit) }) });
}

function openWhenBegun(item) {
  const onChange = () => {
    if (item.state === "waiting" || item.state === "uploading") return;
    queue.removeEventListener("change", onChange);
    const atHome = ["", "#/", "#"].includes(location.hash);
    const alone = queue.items.at(-1) === item;
    if (item.task && atHome && alone) location.hash = `#/task/${item.task.id}`;
  };
  queue.addEventListener("change", onChange);
}

export async function takeSample(server) {
  const answer = await request("/sample.wav");
  take([new File([await answer.blob()], "sample.wav", { type: "audio/wav" })], server);
}

/** Dropping and pasting anywhere on the page. */
export function listenEverywhere(server) {
  let depth = 0;
  const over = (visible) => show($("#over"), visible);
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (holdsFiles(event)) over(++depth > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (holdsFiles(event)) over((depth = Math.max(0, depth - 1)) > 0);
  });
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(Boolean((depth = 0)));
    take(await dropped(event.dataTransfer), server);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) return void (event.preventDefault(), take(files, server));
    const text = event.clipboardData?.getData("text").trim() ?? "";
    const inField = event.target.closest?.("input, textarea");
    if (!inField && /^https?:\/\/\S+$/.test(text)) take([{ url: text }], server);
  });
  window.addEventListener("beforeunload", (event) => queue.sending && event.preventDefault());
  document.body.dataset.listening = "yes";
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push(await new Promise((done, fail) => entry.file(done, fail)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const inner of some) await walk(inner, found);
  }
}
