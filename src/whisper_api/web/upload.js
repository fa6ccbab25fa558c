// Files to the server: small ones in one request, large ones in parts that survive a broken
// connection and a closed tab (tus 1.0).

import { createTask, errorFrom, errorOf, headers, request, withKey } from "./api.js";
import { at } from "./place.js";
import { recall, remember } from "./prefs.js";

const SMALL = 8 << 20;
const PART = 8 << 20;
const TRIES = 8;

/** Send `file` and begin its task; `onShare` hears which share (0 to 1) has arrived. */
export async function submit(file, options, onShare, signal) {
  if (file.size <= SMALL) return sendWhole(file, options, onShare, signal);
  const id = await sendParts(file, onShare, signal);
  const begun = await createTask({ ...options, audio_id: id });
  forget(file);
  return begun;
}

/** One multipart request: XMLHttpRequest alone tells how much of it has been sent. */
async function sendWhole(file, options, onShare, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) {
    for (const item of [value].flat()) form.append(Array.isArray(value) ? `${name}[]` : name, item);
  }
  form.append("file", file, file.name);
  const answer = await send({
    method: "POST",
    path: "/v1/audio/transcriptions/async",
    body: form,
    onSent: (sent) => onShare(Math.min(1, sent / Math.max(1, file.size))),
    signal,
  });
  return JSON.parse(answer.responseText);
}

const send = (call) => withKey(() => sendOnce(call));

function sendOnce({ method, path, body, onSent, signal, more = {} }) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(method, at(path));
    for (const [name, value] of Object.entries(headers(more))) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => onSent(event.loaded);
    call.onload = () => {
      if (call.status < 400) resolve(call);
      else reject(errorFrom(call.status, call.responseText, (name) => call.getResponseHeader(name)));
    };
    call.onerror = () => reject(errorFrom(0, '{"error":{"code":"offline"}}', () => null));
    call.onabort = () => reject(new DOMException("", "AbortError"));
    signal.addEventListener("abort", () => call.abort(), { once: true });
    if (signal.aborted) call.abort();
    else call.send(body);
  });
}

// --- in parts -------------------------------------------------------------------------------

const mark = (file) => `upload.${file.name}.${file.size}.${file.lastModified}`;
const forget = (file) => remember(mark(file), null);

async function sendParts(file, onShare, signal) {
  let { path, offset } = (await begun(file, signal)) ?? (await begin(file, signal));
  for (let tries = 0; offset < file.size; ) {
    try {
      offset = await sendPart(file, path, offset, onShare, signal);
      tries = 0;
    } catch (error) {
      const lost = error.code === "offline" || error.status >= 500 || error.status === 409;
      if (!lost || ++tries > TRIES) throw error;
      await new Promise((go) => setTimeout(go, Math.min(10_000, 300 * 2 ** tries)));
      offset = (await offsetOf(path, signal)) ?? offset;
    }
  }
  return path.split("/").pop();
}

async function sendPart(file, path, offset, onShare, signal) {
  const answer = await send({
    method: "PATCH",
    path,
    body: file.slice(offset, offset + PART),
    onSent: (sent) => onShare(Math.min(1, (offset + sent) / file.size)),
    signal,
    more: { ...TUS, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" },
  });
  return Number(answer.getResponseHeader("upload-offset"));
}

const TUS = { "Tus-Resumable": "1.0.0" };

async function begin(file, signal) {
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const more = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` };
  const answer = await request("/v1/uploads", { method: "POST", headers: more, signal });
  const path = `/v1/uploads/${answer.headers.get("location").split("/").pop()}`;
  remember(mark(file), path);
  return { path, offset: 0 };
}

/** An upload of the same file that this browser began earlier. */
async function begun(file, signal) {
  const path = recall(mark(file), null);
  const offset = path && (await offsetOf(path, signal).catch(() => null));
  if (path && offset === null) forget(file);
  return offset ? { path, offset } : null;
}

/** How far an upload has come; null where the server cannot be reached or forgot it. */
async function offsetOf(path, signal) {
  try {
    const answer = await fetch(at(path), { method: "HEAD", headers: headers(TUS), signal });
    if (answer.status >= 500) return null;
    if (!answer.ok) throw await errorOf(answer);
    return Number(answer.headers.get("upload-offset"));
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
