// The microphone: level, pause, and a WAV file in the end.

import { h, write } from "./dom.js";
import { icon } from "./icons.js";
import { at } from "./place.js";
import { clock, t } from "./text.js";
import { wav } from "./wav.js";

const RATE = 16_000;
const QUIET_AFTER = 4;

/** Show a recorder in `panel`; gives a File, or null where it was discarded. */
export async function record(panel) {
  const tape = await Tape.open();
  try {
    const keep = await new Promise((resolve) => face(panel, tape, resolve));
    if (!keep || !tape.seconds) return null;
    const date = new Date().toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "medium" });
    const name = t("record.name", { date }).replace(/[/\\:]/g, ".");
    return new File([wav(await tape.stop(), tape.rate)], `${name}.wav`, { type: "audio/wav" });
  } finally {
    tape.close();
    panel.hidden = true;
    panel.replaceChildren();
  }
}

/** What the microphone gives, as 16-bit samples. */
class Tape {
  parts = [];
  samples = 0;
  level = 0;
  loudest = 0;

  static async open() {
    const { mediaDevices } = navigator;
    if (!mediaDevices) throw spoken("record.insecure");
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: true, autoGainControl: true };
    let stream;
    try {
      stream = await mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw spoken(error.name === "NotFoundError" ? "record.none" : "record.denied");
    }
    const tape = new Tape();
    try {
      await tape.#connect(stream);
    } catch (error) {
      tape.close();
      throw error;
    }
    return tape;
  }

  get rate() {
    return this.context.sampleRate;
  }

  get seconds() {
    return this.samples / this.rate;
  }

  get paused() {
    return this.context.state === "suspended";
  }

  toggle() {
    return this.paused ? this.context.resume() : this.context.suspend();
  }

  async stop() {
    if (this.paused) await this.context.resume();
    const last = new Promise((resolve) => (this.onLast = resolve));
    this.node.port.postMessage("stop");
    await last;
    return this.parts;
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.context && this.context.state !== "closed") this.context.close();
  }

  async #connect(stream) {
    this.stream = stream;
    this.context = await contextFor(stream);
    await this.context.audioWorklet.addModule(at("/web/recorder-worklet.js"));
    this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.#take(data);
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.node);
    await this.context.resume();
  }

  #take({ samples, peak, last }) {
    this.level = peak;
    this.loudest = Math.max(this.loudest, peak);
    if (samples.length) this.parts.push(samples);
    this.samples += samples.length;
    if (last) this.onLast?.();
  }
}

/** A context at Whisper's rate; some browsers take microphones at their own rate only. */
async function contextFor(stream) {
  const context = new AudioContext({ sampleRate: RATE });
  try {
    context.createMediaStreamSource(stream);
    return context;
  } catch {
    await context.close();
    return new AudioContext();
  }
}

function spoken(name) {
  return Object.assign(new Error(name), { words: t(name) });
}

function face(panel, tape, finish) {
  const time = h("span", { class: "recorder-time" }, "0:00");
  const bar = h("i");
  const about = { role: "meter", "aria-label": t("record.level"), "aria-valuemin": 0, "aria-valuemax": 100 };
  const level = h("div", { class: "level", ...about, "aria-valuenow": 0 }, bar);
  const state = h("span", { class: "quiet small", role: "status" });
  const pauseWords = h("span", { class: "label" });
  const pause = h("button", { type: "button", class: "soft", onclick: () => tape.toggle() }, icon("pause", 18), pauseWords);
  let frame = 0;
  const end = (keep) => {
    cancelAnimationFrame(frame);
    removeEventListener("beforeunload", warn);
    finish(keep);
  };
  const button = (style, words, keep) =>
    h("button", { type: "button", class: style, onclick: () => end(keep) }, t(words));
  panel.replaceChildren(
    h("div", { class: "recorder-state" }, h("span", { class: "recorder-dot" }), time, level),
    state,
    h("div", { class: "recorder-actions" }, button("primary", "record.done", true), pause, button("soft danger", "record.drop", false)),
  );
  panel.hidden = false;
  addEventListener("beforeunload", warn);
  const paint = () => {
    const { paused, seconds } = tape;
    write(time, clock(seconds));
    const share = paused ? 0 : Math.min(1, Math.sqrt(tape.level));
    bar.style.transform = `scaleX(${share})`;
    level.setAttribute("aria-valuenow", String(Math.round(10 * share) * 10));
    panel.dataset.state = paused ? "paused" : "on";
    write(pauseWords, t(paused ? "record.resume" : "record.pause"));
    const silent = seconds > QUIET_AFTER && tape.loudest < 0.01;
    write(state, t(paused ? "record.paused" : silent ? "record.quiet" : "record.on"));
    frame = requestAnimationFrame(paint);
  };
  paint();
  panel.querySelector(".primary").focus();
}

const warn = (event) => event.preventDefault();
