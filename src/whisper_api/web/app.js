import { currentTongue, paint, say, switchTongue } from "./i18n.js";
import { transcribe } from "./stream.js";

const $ = (id) => document.getElementById(id);
const ENDINGS = { text: "txt", srt: "srt", vtt: "vtt", json: "json", verbose_json: "json" };

let chosen = null;
let abort = null;
let capabilities = null;
let ready = null;
let finished = "text";

async function getJson(path) {
  const answer = await fetch(path);
  return answer.json();
}

// --- what the server says about itself ------------------------------------------------------

async function watchModel() {
  try {
    ready = await getJson("/ready");
  } catch {
    ready = null;
  }
  showModel();
  if (ready?.status !== "ready") setTimeout(watchModel, 2000);
}

function showModel() {
  const { status, model, device, engine, reasons, note } = ready ?? { status: "loading" };
  if (status === "ready") $("model").textContent = [model, engine, device].join(" · ");
  else if (status === "failed") $("model").textContent = say("failed", { reason: reasons[0] });
  else $("model").textContent = say("loading");
  const bundled = model === "bundled";
  $("note").hidden = !(bundled || note);
  $("note").textContent = bundled ? say("bundled") : (note ?? "");
}

async function showCapabilities() {
  capabilities = await getJson("/v1/capabilities");
  $("sample").hidden = !capabilities.features.sample;
  $("keyfield").hidden = !capabilities.api_key_required;
  $("key").value = sessionStorage.getItem("key") ?? "";
  showWords();
}

function showLanguages() {
  const select = $("language");
  const before = select.value;
  const names = new Intl.DisplayNames([currentTongue()], { type: "language" });
  const items = capabilities.languages.map(({ code, name }) => {
    const shown = displayName(names, code) ?? name;
    return [code, shown[0].toUpperCase() + shown.slice(1)];
  });
  items.sort((a, b) => a[1].localeCompare(b[1], currentTongue()));
  select.replaceChildren(select.firstElementChild, ...items.map(([c, n]) => new Option(n, c)));
  select.value = before;
}

function displayName(names, code) {
  try {
    const name = names.of(code);
    return name === code ? null : name;
  } catch {
    return null;
  }
}

function showWords() {
  paint(document);
  $("tongue").textContent = say("other");
  $("tongue").ariaLabel = say("other");
  $("base").textContent = `base_url="${location.origin}/v1"`;
  if (chosen) $("filename").textContent = chosen.name;
  showModel();
  if (capabilities === null) return;
  $("hint").textContent = say("limit", { size: size(capabilities.limits.max_file_bytes) });
  showLanguages();
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; bytes >= 1024 && place < units.length - 1; place++) bytes /= 1024;
  return `${Math.round(bytes * 10) / 10} ${units[place]}`;
}

// --- choosing -------------------------------------------------------------------------------

function choose(file) {
  chosen = file;
  $("filename").textContent = file.name;
  $("go").disabled = false;
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(file);
  $("player").hidden = false;
}

async function chooseSample() {
  const answer = await fetch("/sample.wav");
  choose(new File([await answer.blob()], "sample.wav", { type: "audio/wav" }));
  start();
}

// --- transcribing ---------------------------------------------------------------------------

function start() {
  abort?.();
  const began = performance.now();
  const format = $("format").value;
  finished = format;
  sessionStorage.setItem("key", $("key").value);
  $("result").hidden = false;
  $("error").hidden = true;
  $("text").textContent = "";
  $("text").classList.toggle("code", format !== "text");
  busy(true);
  abort = transcribe({
    path: `/v1/audio/${$("task").value}`,
    key: $("key").value.trim(),
    file: chosen,
    fields: {
      stream: "true",
      language: $("language").value,
      // Verbose events say how long the audio is; the text is the same.
      response_format: format === "text" ? "verbose_json" : format,
    },
    onUpload: showUpload,
    onDelta: (delta) => $("text").append(delta),
    onDone: (event) => finish(event, format, (performance.now() - began) / 1000),
    onError: (message) => fail(message ?? say("lost")),
  });
}

function showUpload(share) {
  if (share >= 1) {
    $("progress").parentElement.classList.add("busy");
    $("state").textContent = say("listening");
  } else {
    $("progress").style.width = `${share * 100}%`;
    $("state").textContent = say("uploading", { percent: Math.round(share * 100) });
  }
}

function finish({ type, ...content }, format, seconds) {
  busy(false);
  const isJson = format.endsWith("json");
  $("text").textContent = isJson ? JSON.stringify(content, null, 2) : content.text;
  const audio = content.duration ?? $("player").duration;
  $("state").textContent = say("done", { audio: audio.toFixed(1), took: seconds.toFixed(1) });
  const empty = $("text").textContent.trim() === "";
  if (empty) $("text").textContent = say("silence");
  $("copy").hidden = $("save").hidden = empty;
}

function fail(message) {
  busy(false);
  $("state").textContent = "";
  $("error").hidden = false;
  $("error").textContent = message;
}

function busy(yes) {
  $("go").disabled = yes;
  $("sample").disabled = yes;
  $("stop").hidden = !yes;
  $("progress").style.width = "0";
  $("progress").parentElement.classList.remove("busy");
  if (yes) $("copy").hidden = $("save").hidden = true;
  else abort = null;
}

async function copy() {
  await navigator.clipboard.writeText($("text").textContent);
  $("copy").textContent = say("copied");
  setTimeout(() => ($("copy").textContent = say("copy")), 1500);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([$("text").textContent], { type: "text/plain" }));
  link.download = `${chosen.name.replace(/\.[^.]*$/, "")}.${ENDINGS[finished]}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- wiring ---------------------------------------------------------------------------------

$("file").addEventListener("change", () => $("file").files[0] && choose($("file").files[0]));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (chosen) start();
});
$("sample").addEventListener("click", chooseSample);
$("stop").addEventListener("click", () => {
  abort?.();
  busy(false);
  $("state").textContent = say("stopped");
});
$("copy").addEventListener("click", copy);
$("save").addEventListener("click", save);
$("tongue").addEventListener("click", () => {
  switchTongue();
  showWords();
});

showWords();
watchModel();
showCapabilities();
