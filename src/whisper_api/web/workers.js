// The machines that share the work, where there is more than one.

import * as api from "./api.js";
import { h, show } from "./dom.js";
import { currentTongue, t } from "./text.js";

const LOOK_MS = 3000;
const TAGS = { ready: "tag good", draining: "tag", away: "tag bad" };

/** Keep `section` showing them until the returned function is called; admins see each of them. */
export function showWorkers(section, isAdmin) {
  let timer = 0;
  let gone = false;
  const look = async () => {
    try {
      const nodes = isAdmin ? rows((await api.workers()).data) : sum((await api.queue()).cluster.workers);
      if (gone) return;
      show(section, nodes.length > 0);
      section.replaceChildren(h("h2", {}, t("workers.title")), ...nodes);
    } catch {
      // Models are what this view is about: what is known of machines stays as it is.
    }
    if (!gone) timer = setTimeout(look, LOOK_MS);
  };
  look();
  return () => {
    gone = true;
    clearTimeout(timer);
  };
}

function rows(workers) {
  if (workers.length < 2) return [];
  return [h("ul", { class: "rows card", id: "workers" }, workers.map(row))];
}

function row(worker) {
  const { id, host, pid, role, state } = worker;
  const tag = h("span", { class: TAGS[state] }, t(`workers.${state}`));
  const title = h("span", { class: "model-title" }, `${host} · ${pid}`, tag);
  const sub = [t(`workers.role.${role}`), ...(role === "api" ? [] : doing(worker))];
  if (state === "away") sub.push(t("workers.seen", { s: Math.round(worker.seen_seconds_ago) }));
  return h("li", { data: { worker: id } }, h("div", { class: "row-main" }, title, h("span", { class: "row-sub" }, sub.join(" · "))));
}

function doing({ models, running, speed }) {
  const held = models.length ? t("workers.holds", { models: models.join(", ") }) : t("workers.empty");
  const work = running ? t("workers.running", { count: running }) : t("workers.idle");
  return [held, work, speed ? t("workers.speed", { factor: speed.toLocaleString(currentTongue(), { maximumFractionDigits: 1 }) }) : ""].filter(Boolean);
}

function sum(states) {
  const known = Object.entries(states).filter(([, count]) => count > 0);
  if (known.reduce((total, [, count]) => total + count, 0) < 2) return [];
  const words = known.map(([state, count]) => `${t(`workers.${state}`)}: ${count}`);
  return [h("p", { class: "quiet" }, words.join(" · "))];
}
