// Runs beside the page: the microphone's samples as 16-bit numbers, a tenth of a second at a time.

class Recorder extends AudioWorkletProcessor {
  #block = new Int16Array(Math.round(sampleRate / 10));
  #filled = 0;
  #peak = 0;
  #stopped = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.#stopped = true;
      this.#send(true);
    };
  }

  process([[samples]]) {
    if (this.#stopped) return false;
    for (const sample of samples ?? []) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.#peak = Math.max(this.#peak, Math.abs(clipped));
      this.#block[this.#filled++] = clipped < 0 ? clipped * 32768 : clipped * 32767;
      if (this.#filled === this.#block.length) this.#send(false);
    }
    return true;
  }

  #send(last) {
    const samples = this.#block.slice(0, this.#filled);
    this.port.postMessage({ samples, peak: this.#peak, last }, [samples.buffer]);
    this.#filled = 0;
    this.#peak = 0;
  }
}

registerProcessor("recorder", Recorder);
