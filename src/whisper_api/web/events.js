// Server-sent events over fetch, which can send a key (EventSource cannot). A broken connection
// is taken up again after the last event that arrived.

import { request } from "./api.js";

const LONGEST_PAUSE = 15_000;

/** Calls `onEvent(name, data)` for each event until the server ends the stream. */
export async function follow(path, onEvent, signal) {
  let last = null;
  let pause = 500;
  while (!signal.aborted) {
    try {
      const more = last === null ? {} : { "Last-Event-ID": last };
      const answer = await request(path, { signal, headers: { Accept: "text/event-stream", ...more } });
      for await (const event of read(answer.body)) {
        pause = 500;
        last = event.id ?? last;
        onEvent(event.name, JSON.parse(event.data));
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      const lost = error.code === "offline" || error instanceof TypeError || error.status >= 500;
      if (!lost) throw error;
    }
    await new Promise((go) => setTimeout(go, pause));
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

async function* read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const event = parse(frame);
      if (event.data !== "") yield event;
    }
  }
}

function parse(frame) {
  const event = { name: "message", id: null, data: "" };
  for (const line of frame.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(at + 1).replace(/^ /, "");
    const field = line.slice(0, at);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += event.data ? `\n${value}` : value;
  }
  return event;
}
