// Segments -> cues -> the text of a file. `layout` null keeps one cue for each segment.

import { pieces } from "./words.js";

export const LAYOUT = { width: 42, lines: 2, seconds: 7 };
const SENTENCE = /[.!?…。！？]["»”')\]]*$/;

export const FORMATS = {
  txt: { type: "text/plain;charset=utf-8", write: toText },
  srt: { type: "application/x-subrip;charset=utf-8", write: toSrt },
  vtt: { type: "text/vtt;charset=utf-8", write: toVtt },
  json: { type: "application/json", write: toJson },
};

/** `record`: {title, language, duration, model, task}; `options`: {layout, times, paragraphs}. */
export function render(format, segments, record, options = {}) {
  return FORMATS[format].write(segments, record, options);
}

function toText(segments, _record, { times = false, paragraphs = true }) {
  if (times) {
    return segments.map((s) => `[${stamp(s.start, ".").slice(0, -4)}] ${s.text}\n`).join("");
  }
  let text = "";
  segments.forEach((segment, place) => {
    const gap = place ? segment.start - segments[place - 1].end : 0;
    const apart = paragraphs && gap > 2 ? "\n\n" : " ";
    text += (place ? apart : "") + segment.text;
  });
  return `${text}\n`;
}

function toSrt(segments, _record, { layout = null }) {
  return cues(segments, layout)
    .map(({ start, end, lines }, place) => {
      const text = lines.join("\n").replaceAll("-->", "->");
      return `${place + 1}\n${stamp(start, ",")} --> ${stamp(end, ",")}\n${text}\n\n`;
    })
    .join("");
}

function toVtt(segments, _record, { layout = null }) {
  const body = cues(segments, layout).map(({ start, end, lines }) => {
    const text = lines.join("\n").replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    return `${stamp(start, ".")} --> ${stamp(end, ".")}\n${text.replaceAll(">", "&gt;")}\n\n`;
  });
  return `WEBVTT\n\n${body.join("")}`;
}

function toJson(segments, record) {
  const { title, task, language, duration, model } = record;
  const text = segments.map((segment) => segment.text).join(" ");
  const content = { title, task, language, duration, model, text };
  const parts = segments.map(({ start, end, text, words }, id) => ({
    id,
    start,
    end,
    text,
    ...(words.length ? { words } : {}),
  }));
  return `${JSON.stringify({ ...content, segments: parts }, null, 2)}\n`;
}

function stamp(seconds, separator) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const rest = String(ms % 1000).padStart(3, "0");
  return `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}${separator}${rest}`;
}

// --- cues -----------------------------------------------------------------------------------

/** [{start, end, lines}], no longer than the layout says where words can be broken so. */
export function cues(segments, layout) {
  const spoken = segments.filter((segment) => segment.text.trim());
  if (!layout) {
    return spoken.map(({ start, end, text }) => ({
      start,
      end: Math.max(end, start + 0.001),
      lines: [text.trim().split(/\s+/).join(" ")],
    }));
  }
  return spoken.flatMap((segment) => [...laidOut(tokens(segment), layout)]);
}

/** Words that can be put on lines, each with its times. */
function tokens(segment) {
  const found = pieces(segment).flatMap((piece) => spread(piece, segment));
  return found.filter((token) => token.text);
}

/** A piece of more than one word shares its time by letters. */
function spread(piece, segment) {
  const start = piece.start ?? segment.start;
  const end = piece.end ?? segment.end;
  const parts = piece.text.split(/\s+/).filter(Boolean);
  const total = parts.reduce((sum, part) => sum + part.length, 0) || 1;
  let at = 0;
  return parts.map((text) => {
    const from = start + ((end - start) * at) / total;
    at += text.length;
    return { text, start: from, end: start + ((end - start) * at) / total };
  });
}

function* laidOut(words, { width, lines, seconds }) {
  let cue = null;
  for (const word of words) {
    const room = cue && place(cue, word.text, width, lines);
    const over = cue && word.end - cue.start > seconds;
    if (cue && (!room || over || (cue.ended && cue.lines.length === lines))) {
      yield finished(cue);
      cue = null;
    }
    if (!cue) cue = { start: word.start, end: word.end, lines: [word.text], ended: false };
    else cue.lines = room;
    cue.end = Math.max(cue.end, word.end);
    cue.ended = SENTENCE.test(word.text);
  }
  if (cue) yield finished(cue);
}

/** The cue's lines with one more word, or null where it does not fit. */
function place(cue, word, width, lines) {
  const last = `${cue.lines.at(-1)} ${word}`;
  if (last.length <= width) return [...cue.lines.slice(0, -1), last];
  return cue.lines.length < lines ? [...cue.lines, word] : null;
}

/** Two lines of about one length read best. */
function finished({ start, end, lines }) {
  const balanced = lines.length === 2 ? balance(lines) : lines;
  return { start, end: Math.max(end, start + 0.001), lines: balanced };
}

function balance(lines) {
  const words = lines.join(" ").split(" ");
  const longest = Math.max(...lines.map((line) => line.length));
  let best = lines;
  for (let cut = 1; cut < words.length; cut++) {
    const pair = [words.slice(0, cut).join(" "), words.slice(cut).join(" ")];
    const width = Math.max(pair[0].length, pair[1].length);
    if (width <= longest && width < Math.max(best[0].length, best[1].length)) best = pair;
  }
  return best;
}
