// The picture of a recording: loudness as the server measured it, speech in colour.

import { h } from "./dom.js";
import { clock, t } from "./text.js";

const STEP = 3; // pixels from bar to bar

export class Waveform {
  duration = 0;
  #peaks = null;
  #speech = [];
  #time = 0;

  /** `onSeek(seconds)` when a place is chosen. */
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.head = h("div", { class: "wave-head" });
    const about = { role: "slider", tabindex: 0, "aria-label": t("player.position"), "aria-valuemin": 0 };
    this.node = h("div", { class: "wave", ...about }, this.canvas, this.head);
    this.node.addEventListener("pointerdown", (event) => this.#drag(event));
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.observer = new ResizeObserver(() => this.#draw());
    this.observer.observe(this.node);
    this.onTheme = () => this.#draw();
    document.addEventListener("theme", this.onTheme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.onTheme);
  }

  close() {
    this.observer.disconnect();
    document.removeEventListener("theme", this.onTheme);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.onTheme);
  }

  /** What /peaks answered. */
  set({ duration, peaks, speech }) {
    this.#peaks = peaks;
    this.#speech = speech;
    this.setDuration(duration);
  }

  setDuration(duration) {
    this.duration = duration;
    this.node.setAttribute("aria-valuemax", String(Math.round(duration)));
    this.#draw();
    this.setTime(this.#time);
  }

  setTime(time) {
    const share = this.duration ? Math.min(1, time / this.duration) : 0;
    this.head.style.transform = `translateX(${share * this.node.clientWidth}px)`;
    const shown = Math.floor(time);
    if (Math.floor(this.#time) !== shown || !this.node.hasAttribute("aria-valuenow")) {
      this.node.setAttribute("aria-valuenow", String(shown));
      const words = t("player.at", { at: clock(time), total: clock(this.duration) });
      this.node.setAttribute("aria-valuetext", words);
    }
    const before = this.#place(this.#time);
    this.#time = time;
    if (before !== this.#place(time)) this.#draw();
  }

  #place(time) {
    return this.duration ? Math.floor(((time / this.duration) * this.node.clientWidth) / STEP) : 0;
  }

  // --- drawing --------------------------------------------------------------------------------

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== size[0]) this.canvas.width = size[0];
    if (this.canvas.height !== size[1]) this.canvas.height = size[1];
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.node);
    const colour = (name) => style.getPropertyValue(name);
    const probe = [colour("--wave-speech"), colour("--wave-rest"), colour("--wave-done")];
    const bars = Math.floor(width / STEP);
    const loudness = this.#bars(bars);
    const done = this.#place(this.#time);
    const spoken = this.#spokenBars(bars);
    for (let bar = 0; bar < bars; bar++) {
      const tall = Math.max(2, loudness[bar] * (height - 4));
      pen.fillStyle = spoken[bar] ? (bar < done ? probe[2] : probe[0]) : probe[1];
      pen.fillRect(bar * STEP, (height - tall) / 2, STEP - 1, tall);
    }
  }

  /** The loudest peak under each bar; loud recordings and quiet ones both fill the picture. */
  #bars(count) {
    const found = new Float32Array(count);
    const peaks = this.#peaks;
    if (!peaks?.length) return found;
    let top = 0.15;
    for (let bar = 0; bar < count; bar++) {
      const from = Math.floor((bar * peaks.length) / count);
      const to = Math.max(from + 1, Math.floor(((bar + 1) * peaks.length) / count));
      for (let at = from; at < to; at++) found[bar] = Math.max(found[bar], peaks[at] ?? 0);
      top = Math.max(top, found[bar]);
    }
    return found.map((value) => (value / top) ** 0.7);
  }

  #spokenBars(count) {
    const found = new Uint8Array(count);
    for (const [start, end] of this.#speech) {
      const from = Math.floor((start / this.duration) * count);
      const to = Math.ceil((end / this.duration) * count);
      found.fill(1, Math.max(0, from), Math.min(count, to));
    }
    return found;
  }

  // --- choosing a place -----------------------------------------------------------------------

  #drag(event) {
    if (!this.duration || event.button > 0) return;
    this.node.setPointerCapture(event.pointerId);
    const seek = ({ clientX }) => {
      const { left, width } = this.node.getBoundingClientRect();
      this.onSeek(Math.min(1, Math.max(0, (clientX - left) / width)) * this.duration);
    };
    const end = () => {
      this.node.removeEventListener("pointermove", seek);
      this.node.removeEventListener("pointerup", end);
      this.node.removeEventListener("pointercancel", end);
    };
    this.node.addEventListener("pointermove", seek);
    this.node.addEventListener("pointerup", end);
    this.node.addEventListener("pointercancel", end);
    seek(event);
  }

  #key(event) {
    const steps = { ArrowLeft: -5, ArrowRight: 5, ArrowDown: -5, ArrowUp: 5, PageDown: -30, PageUp: 30 };
    const to = { Home: 0, End: this.duration }[event.key] ?? this.#time + (steps[event.key] ?? NaN);
    if (Number.isNaN(to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.onSeek(Math.min(this.duration, Math.max(0, to)));
  }
}
