// Which words the model was unsure of. What somebody has typed is beyond doubt.

import { pieces } from "./words.js";

const DOUBT = 0.6;
const WRONG = 0.3;
const UNSURE_LINE = Math.log(0.5);
const known = new WeakMap();

/** A segment's pieces, computed once. */
export function piecesOf(segment) {
  if (!known.has(segment)) known.set(segment, pieces(segment));
  return known.get(segment);
}

/** "", "doubt" or "wrong". */
export function doubtOf({ probability }) {
  if (probability === null || probability === undefined || probability >= DOUBT) return "";
  return probability < WRONG ? "wrong" : "doubt";
}

/** Whether a whole segment without words is doubtful. */
export function isUnsure({ words, logprob, edited }) {
  return !words.length && !edited && logprob !== null && logprob < UNSURE_LINE;
}

const counts = new WeakMap();

function countIn(segment) {
  if (!counts.has(segment)) {
    const words = piecesOf(segment).filter(doubtOf).length;
    counts.set(segment, words || Number(isUnsure(segment)));
  }
  return counts.get(segment);
}

export const count = (segments) => segments.reduce((sum, segment) => sum + countIn(segment), 0);

/** The next doubtful place behind {row, piece}, from the start again at the end; null: none. */
export function nextDoubt(segments, { row, piece }) {
  for (let step = 0; step <= segments.length; step++) {
    const at = (Math.max(0, row) + step) % segments.length;
    const segment = segments[at];
    if (!segment || !countIn(segment)) continue;
    const from = step === 0 && row >= 0 ? piece + 1 : 0;
    const found = piecesOf(segment).findIndex((p, place) => place >= from && doubtOf(p));
    if (found >= 0) return { row: at, piece: found };
    if (isUnsure(segment) && from === 0) return { row: at, piece: 0 };
  }
  return null;
}
