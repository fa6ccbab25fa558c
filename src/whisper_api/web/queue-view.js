// The list of recordings on their way.

import { problem } from "./api.js";
import { h, show, write } from "./dom.js";
import { icon } from "./icons.js";
import { OVER, queue } from "./queue.js";
import { clock, span, t } from "./text.js";
import { iconButton } from "./ui.js";

const MARKS = { completed: "check", failed: "alert", cancelled: "close" };

/** Keep `section` showing the queue until the returned function is called. */
export function showQueue({ section, list, sum, cancelAll, clear }) {
  const rows = new Map();
  const paint = () => {
    const { items } = queue;
    show(section, items.length > 0);
    const keys = new Set(items.map(({ key }) => key));
    for (const [key, row] of rows) {
      if (keys.has(key)) continue;
      row.node.remove();
      rows.delete(key);
    }
    items.forEach((item, place) => {
      if (!rows.has(item.key)) rows.set(item.key, makeRow(item));
      const row = rows.get(item.key);
      if (list.children[place] !== row.node) list.insertBefore(row.node, list.children[place] ?? null);
      if (row.version !== item.version) row.paint();
      row.version = item.version;
    });
    const done = items.filter(({ state }) => OVER.has(state)).length;
    write(sum, t("queue.sum", { done, count: items.length }));
    show(cancelAll, done < items.length);
    show(clear, done > 0);
  };
  const cancelEach = () => queue.active.forEach((item) => queue.cancel(item));
  const clearDone = () => queue.clear();
  queue.addEventListener("change", paint);
  cancelAll.addEventListener("click", cancelEach);
  clear.addEventListener("click", clearDone);
  list.replaceChildren();
  paint();
  return () => {
    queue.removeEventListener("change", paint);
    cancelAll.removeEventListener("click", cancelEach);
    clear.removeEventListener("click", clearDone);
  };
}

function makeRow(item) {
  const bar = h("i");
  const track = h("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
  const title = h("span", { class: "row-title" });
  const sub = h("span", { class: "row-sub" });
  const mark = h("span", { class: "mark" });
  const acts = h("div", { class: "row-acts" });
  const node = h("li", { class: "queue-row" }, mark, h("div", { class: "row-main" }, title, sub, track), acts);
  let shown = "";
  const paint = () => {
    const state = `${item.state}:${Boolean(item.task)}:${item.task?.history_id ?? ""}`;
    if (state !== shown) {
      shown = state;
      node.dataset.state = item.state;
      mark.replaceChildren(icon(MARKS[item.state] ?? "file"));
      acts.replaceChildren(...actions(item));
    }
    write(title, item.name);
    write(sub, words(item));
    sub.classList.toggle("bad", item.state === "failed");
    sub.title = item.state === "failed" ? (item.error?.message ?? "") : "";
    const share = progress(item);
    bar.style.transform = `scaleX(${share})`;
    track.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    track.setAttribute("aria-label", t("queue.progress", { name: item.name }));
  };
  return { node, paint, version: -1 };
}

/** Which share of the bar is filled: sending is its first tenth. */
function progress({ state, share, task }) {
  if (state === "completed") return 1;
  if (state === "uploading") return 0.1 * share;
  return task ? 0.1 + (0.9 * (task.progress ?? 0)) / 100 : 0;
}

export function words({ state, share, task, error }) {
  if (state === "failed") return problem(error ?? {}).text;
  if (state === "uploading") return t("queue.uploading", { percent: Math.round(100 * share) });
  if (state === "running") return [running(task), left(task)].filter(Boolean).join(" · ");
  return t(`queue.${state}`);
}

function running({ progress: percent, processed_seconds: done, duration_seconds: duration }) {
  const whole = Math.round(percent ?? 0);
  if (!duration) return t("queue.running", { percent: whole });
  const times = { done: clock(done ?? 0), duration: clock(duration) };
  return t("queue.runningOf", { percent: whole, ...times });
}

function left({ eta_seconds: eta }) {
  return eta ? t("queue.eta", { eta: span(eta) }) : "";
}

function actions(item) {
  const { state, task } = item;
  const made = [];
  if (state === "completed" && task?.history_id) {
    made.push(h("a", { class: "button soft", href: `#/t/${task.history_id}` }, t("queue.open")));
  } else if (task && !OVER.has(state)) {
    made.push(h("a", { class: "button soft", href: `#/task/${task.id}` }, t("queue.watch")));
  }
  const again = state === "failed" || state === "cancelled";
  if (again && (task || item.file || item.url)) {
    const about = { class: "soft" };
    made.push(h("button", { type: "button", ...about, onclick: () => queue.retry(item) }, t("queue.retry")));
  }
  if (OVER.has(state)) made.push(iconButton("close", t("queue.remove"), () => queue.remove(item)));
  else made.push(iconButton("close", t("queue.cancel"), () => queue.cancel(item)));
  return made;
}
