// One transcription over XMLHttpRequest: it alone tells how much of the upload is done.

export function transcribe({ path, key, fields, file, onUpload, onDelta, onDone, onError }) {
  const request = new XMLHttpRequest();
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, file.name);

  const reader = new EventReader({ onDelta, onDone, onError });
  request.open("POST", path);
  if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) onUpload(event.loaded / event.total);
  };
  request.upload.onload = () => onUpload(1);
  request.onprogress = () => {
    if (request.status === 200) reader.read(request.responseText);
  };
  request.onload = () => {
    if (request.status === 200) reader.end(request.responseText);
    else onError(errorMessage(request));
  };
  request.onerror = () => onError(null);
  request.send(form);
  return () => request.abort();
}

class EventReader {
  #at = 0;
  #ended = false;

  constructor({ onDelta, onDone, onError }) {
    Object.assign(this, { onDelta, onDone, onError });
  }

  read(text) {
    for (let stop; (stop = text.indexOf("\r\n\r\n", this.#at)) >= 0; this.#at = stop + 4) {
      const frame = text.slice(this.#at, stop);
      if (frame.startsWith("data: ") && frame !== "data: [DONE]") this.#event(frame.slice(6));
    }
  }

  end(text) {
    this.read(text);
    if (!this.#ended) this.onError(null);
  }

  #event(json) {
    const event = JSON.parse(json);
    if (event.type === "transcript.text.delta") return this.onDelta(event.delta);
    this.#ended = true;
    if (event.error) this.onError(event.error.message);
    else this.onDone(event);
  }
}

function errorMessage(request) {
  try {
    return JSON.parse(request.responseText).error.message;
  } catch {
    return `${request.status} ${request.statusText}`;
  }
}
