// A segment's text as pieces with times, and times for words that somebody typed.
//
// The server's words come in order but without punctuation; the text has everything.

/** Pieces that together are the text: {text, start, end, probability, word} (word: its place). */
export function pieces({ text, words }) {
  const found = [];
  let from = 0;
  (words ?? []).forEach((word, place) => {
    const bare = word.word.trim();
    const at = bare ? text.indexOf(bare, from) : -1;
    if (at < 0) return;
    if (found.length) found.at(-1).text = text.slice(found.at(-1).at, at);
    // 0: the server could not align the word and knows nothing about it.
    const { start, end, probability: known } = word;
    const probability = known || null;
    found.push({ at: found.length ? at : 0, text: "", start, end, probability, word: place });
    from = at + bare.length;
  });
  if (!found.length) return [{ at: 0, text, start: null, end: null, probability: null, word: -1 }];
  found.at(-1).text = text.slice(found.at(-1).at);
  return found;
}

const bare = (token) => token.toLocaleLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "");

/** Words for an edited text: those that stayed keep their times, new ones share the gaps. */
export function realign(text, words, start, end) {
  if (!words?.length) return [];
  const tokens = text.split(/\s+/).filter((token) => bare(token));
  const kept = matches(tokens.map(bare), words.map((word) => bare(word.word)));
  const result = tokens.map((token, place) => {
    const old = kept.get(place);
    return old === undefined
      ? { word: token, start: null, end: null }
      : { ...words[old], word: token };
  });
  fillTimes(result, start, end);
  return result;
}

/** Longest common subsequence: place in `a` -> place in `b`. */
function matches(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i][j] =
        a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const found = new Map();
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) found.set(i++, j++);
    else if (best[i + 1][j] >= best[i][j + 1]) i++;
    else j++;
  }
  return found;
}

function fillTimes(words, start, end) {
  for (let from = 0; from < words.length; from++) {
    if (words[from].start !== null) continue;
    let to = from;
    while (to < words.length && words[to].start === null) to++;
    const left = from ? words[from - 1].end : start;
    const right = Math.max(left, to < words.length ? words[to].start : end);
    const step = (right - left) / (to - from);
    for (let place = from; place < to; place++) {
      words[place].start = round(left + step * (place - from));
      words[place].end = round(left + step * (place - from + 1));
    }
    from = to;
  }
}

/** Words moved from one span of time into another. */
export function rescale(words, [start, end], [newStart, newEnd]) {
  const factor = (newEnd - newStart) / Math.max(0.001, end - start);
  const move = (time) => round(Math.min(newEnd, Math.max(newStart, newStart + (time - start) * factor)));
  return words.map((word) => ({ ...word, start: move(word.start), end: move(word.end) }));
}

export const round = (seconds) => Math.round(seconds * 1000) / 1000;
