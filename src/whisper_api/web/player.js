// Listening: the audio element, its controls, the waveform.

import { h, write } from "./dom.js";
import { icon } from "./icons.js";
import { openable } from "./media.js";
import { recall, remember } from "./prefs.js";
import { clock, t } from "./text.js";
import { iconButton } from "./ui.js";
import { Waveform } from "./waveform.js";

const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3];
const SKIP = 5;

export class Player {
  #frame = 0;
  #url = null;
  #wanted = null; // a place chosen before the audio was there

  /** `onTime(seconds, playing)`: often while it plays, once after each seek. */
  constructor(onTime) {
    this.onTime = onTime;
    this.audio = h("audio", { preload: "metadata" });
    this.wave = new Waveform((time) => this.seek(time));
    this.now = h("time", {}, "0:00");
    this.total = h("time", { class: "quiet" }, "0:00");
    this.said = h("span", { class: "say", role: "status" });
    this.button = h("button", { type: "button", class: "play", disabled: true, onclick: () => this.toggle() });
    this.speed = h("select", { "aria-label": t("player.speed"), title: t("player.speed"), onchange: () => this.setSpeed(Number(this.speed.value)) });
    this.speed.append(...SPEEDS.map((rate) => new Option(`${rate.toLocaleString(document.documentElement.lang)}×`, rate)));
    this.node = this.#dock();
    this.#listen();
    this.setSpeed(recall("speed", 1));
    this.#showState();
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.#forget();
    this.wave.close();
  }

  get playing() {
    return !this.audio.paused;
  }

  get time() {
    return this.#wanted ?? this.audio.currentTime;
  }

  /** Play a file of this computer. */
  useFile(file) {
    this.#forget();
    this.#url = URL.createObjectURL(file);
    this.#use(this.#url);
  }

  /** Play what the server has. */
  async usePath(path) {
    write(this.said, t("player.loading"));
    try {
      this.#use(await openable(path));
    } catch {
      this.none(t("player.none"));
    }
  }

  none(words) {
    write(this.said, words);
    this.button.disabled = true;
  }

  setDuration(seconds) {
    write(this.total, clock(seconds));
    this.wave.setDuration(seconds);
  }

  seek(time) {
    const to = Math.max(0, Math.min(time, this.wave.duration || time));
    if (this.audio.readyState >= 1) this.audio.currentTime = to;
    else this.#wanted = to;
    this.#tick();
  }

  skip(seconds) {
    this.seek(this.time + seconds);
  }

  async toggle() {
    if (this.playing) return this.audio.pause();
    if (this.wave.duration && this.time >= this.wave.duration - 0.05) this.seek(0);
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name === "NotSupportedError") this.none(t("player.broken"));
    }
  }

  setSpeed(rate) {
    const known = SPEEDS.includes(rate) ? rate : 1;
    this.audio.playbackRate = this.audio.defaultPlaybackRate = known;
    this.speed.value = String(known);
    remember("speed", known);
  }

  faster(step) {
    const place = SPEEDS.indexOf(Number(this.speed.value)) + step;
    this.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, place))]);
  }

  // --- inside -----------------------------------------------------------------------------------

  #dock() {
    return h(
      "section",
      { class: "dock", "aria-label": t("player.label") },
      this.wave.node,
      h(
        "div",
        { class: "controls" },
        iconButton("rewind", t("player.back"), () => this.skip(-SKIP)),
        this.button,
        iconButton("forward", t("player.forward"), () => this.skip(SKIP)),
        this.now,
        h("span", { class: "quiet", "aria-hidden": "true" }, "/"),
        this.total,
        h("div", { class: "end" }, this.said, this.speed),
      ),
      this.audio,
    );
  }

  #listen() {
    const { audio } = this;
    for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, () => this.#showState());
    audio.addEventListener("seeked", () => this.#tick());
    audio.addEventListener("loadedmetadata", () => {
      this.button.disabled = false;
      write(this.said, "");
      if (Number.isFinite(audio.duration) && !this.wave.duration) this.setDuration(audio.duration);
      if (this.#wanted !== null) audio.currentTime = this.#wanted;
      this.#wanted = null;
    });
    audio.addEventListener("error", () => audio.getAttribute("src") && this.none(t("player.broken")));
  }

  #use(source) {
    const { time } = this;
    const { playing } = this;
    if (time) this.#wanted = time;
    this.audio.src = source;
    if (playing) this.audio.play().catch(() => null);
  }

  #forget() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  #showState() {
    const words = t(this.playing ? "player.pause" : "player.play");
    this.button.replaceChildren(icon(this.playing ? "pause" : "play", 22));
    this.button.title = this.button.ariaLabel = words;
    cancelAnimationFrame(this.#frame);
    this.#tick();
  }

  #tick() {
    const { time, playing } = this;
    write(this.now, clock(time));
    this.wave.setTime(time);
    this.onTime(time, playing);
    cancelAnimationFrame(this.#frame);
    if (playing) this.#frame = requestAnimationFrame(() => this.#tick());
  }
}
