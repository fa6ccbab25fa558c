// Models: which are here, fetching more, choosing one for what comes next.

import * as api from "./api.js";
import { h, show, write } from "./dom.js";
import { choose, chosen } from "./options.js";
import { bytes, t } from "./text.js";
import { empty, iconButton, labelled, sure, toast } from "./ui.js";
import { showWorkers } from "./workers.js";

const KINDS = ["distil", "turbo", "tiny", "base", "small", "medium", "large"];

const RUNNING = new Set(["pending", "running"]);
const isRunning = (pull) => RUNNING.has(pull?.status);

/** The catalogue with the latest download of each model; unknown names get a line of their own. */
function withPulls(models, pulls) {
  const latest = new Map();
  for (const pull of pulls) if (!latest.has(pull.model)) latest.set(pull.model, pull);
  const named = models.map((model) => ({ ...model, pull: latest.get(model.id) ?? null }));
  const known = new Set(models.map(({ id }) => id));
  const shown = pulls.filter((pull) => latest.get(pull.model) === pull && !known.has(pull.model));
  const others = shown.filter((pull) => isRunning(pull) || pull.status === "failed");
  return [...named, ...others.map((pull) => ({ id: pull.model, source: "", pull }))];
}

export function enter(view) {
  const room = new Room(view);
  room.read();
  return () => room.leave();
}

class Room {
  #timer = 0;
  #gone = false;
  #leaveWorkers = null;

  constructor(view) {
    this.view = view;
    this.known = new Map();
    this.here = h("ul", { class: "rows card", id: "models-here" });
    this.others = h("ul", { class: "rows card", id: "models-more" });
    this.note = h("p", { class: "quiet small" });
    this.form = this.#form();
    this.machines = h("section", { class: "block", hidden: true });
    this.body = h(
      "div",
      {},
      h("h2", {}, t("models.here")),
      this.here,
      this.machines,
      h("section", { class: "block" }, h("h2", {}, t("models.more")), this.note, this.others, this.form),
    );
    const head = h("div", { class: "hero" }, h("h1", {}, t("models.title")), h("p", { class: "quiet" }, t("models.lead")));
    view.replaceChildren(head, this.body);
  }

  leave() {
    this.#gone = true;
    this.#leaveWorkers?.();
    clearTimeout(this.#timer);
  }

  async read() {
    clearTimeout(this.#timer);
    try {
      const answer = await api.models();
      const pulls = answer.can_manage ? (await api.pulls()).data : [];
      if (this.#gone) return;
      this.#leaveWorkers ??= showWorkers(this.machines, answer.can_manage);
      const data = withPulls(answer.data, pulls);
      this.#paint({ ...answer, data });
      this.#tell(data);
      if (data.some(({ pull }) => isRunning(pull))) this.#timer = setTimeout(() => this.read(), 1000);
    } catch (error) {
      if (!this.#gone) this.body.replaceChildren(empty("alert", api.problem(error).text, error.message));
    }
  }

  #paint({ data, can_manage: mayManage, offline }) {
    const here = data.filter((model) => model.installed);
    const others = data.filter((model) => !model.installed);
    this.here.replaceChildren(...here.map((model) => this.#row(model, mayManage)));
    this.others.replaceChildren(...others.map((model) => this.#row(model, mayManage && !offline)));
    write(this.note, offline ? t("models.offline") : mayManage ? "" : t("models.admin"));
    show(this.form, mayManage && !offline);
    show(this.others, others.length > 0);
  }

  /** Fetches that ended since the last look. */
  #tell(models) {
    for (const { id, pull, installed } of models) {
      const before = this.known.get(id);
      const now = pull?.status ?? (installed ? "here" : "");
      this.known.set(id, now);
      if (!RUNNING.has(before) || RUNNING.has(now)) continue;
      if (now === "failed") toast(t("models.failed", { model: id, reason: pull.error.message }), { seconds: 12 });
      else if (installed) toast(t("models.fetched", { model: id }));
    }
  }

  #row(model, mayManage) {
    const { id, installed, size_bytes: size, source, loaded, pull } = model;
    const tags = [];
    const isUsed = chosen().model ? chosen().model === id : model.default;
    if (isUsed) tags.push(h("span", { class: "tag good" }, t("models.used")));
    if (model.default) tags.push(h("span", { class: "tag" }, t("models.default")));
    if (loaded) tags.push(h("span", { class: "tag" }, t("models.loaded")));
    const about = [describe(id), size ? bytes(size) : "", id === source ? "" : source].filter(Boolean);
    const main = h("div", { class: "row-main" }, h("span", { class: "model-title" }, id, tags), h("span", { class: "row-sub" }, about.join(" · ")));
    const acts = h("div", { class: "row-acts" });
    if (isRunning(pull)) main.append(...progress(id, pull));
    if (pull?.status === "failed" && !installed) main.append(h("span", { class: "row-sub bad" }, pull.error.message));
    if (installed && !isUsed) acts.append(h("button", { type: "button", class: "soft", onclick: () => this.#use(model) }, t("models.use")));
    if (isRunning(pull) && mayManage) {
      acts.append(iconButton("close", t("models.stop"), () => this.#attempt(() => api.stopPull(pull.id))));
    } else if (!installed && mayManage) {
      acts.append(labelled("save", t("models.pull"), () => this.#pull(id)));
    } else if (model.removable && mayManage) {
      acts.append(iconButton("trash", t("models.remove"), () => this.#askRemove(id)));
    }
    return h("li", { data: { model: id } }, main, acts);
  }

  #use({ id, default: isDefault }) {
    choose({ model: isDefault ? "" : id });
    toast(t("models.chosen", { model: id }), { seconds: 4 });
    this.read();
  }

  async #pull(id) {
    await this.#attempt(() => api.pullModel(id));
  }

  async #askRemove(id) {
    if (!(await sure(t("models.removeSure", { model: id }), t("models.remove")))) return;
    if (chosen().model === id) choose({ model: "" });
    await this.#remove(id);
  }

  #remove(id) {
    return this.#attempt(() => api.removeModel(id));
  }

  async #attempt(action) {
    try {
      await action();
    } catch (error) {
      toast(error.message || api.problem(error).text, { seconds: 8 });
    }
    await this.read();
  }

  #form() {
    const field = h("input", { id: "model-name", required: true, placeholder: t("models.otherHint"), autocomplete: "off", spellcheck: "false" });
    const submit = async (event) => {
      event.preventDefault();
      await this.#pull(field.value.trim());
    };
    const label = h("label", { class: "field grow" }, h("span", {}, t("models.other")), field);
    return h("form", { class: "inline-form end-aligned", onsubmit: submit }, label, h("button", { type: "submit", class: "soft" }, t("models.pull")));
  }
}

function progress(id, { completed_bytes: done, total_bytes: total }) {
  const share = total ? done / total : 0;
  const about = { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": t("queue.progress", { name: id }) };
  const fill = h("i");
  fill.style.transform = `scaleX(${share})`;
  const percent = Math.floor(100 * share);
  const words = total ? t("models.pulling", { percent, done: bytes(done), total: bytes(total) }) : t("models.starting");
  return [h("span", { class: "row-sub" }, words), h("div", { class: "bar", ...about, "aria-valuenow": percent }, fill)];
}

function describe(id) {
  if (id === "bundled") return t("models.bundled");
  const kind = KINDS.find((name) => id.includes(name));
  const english = id.endsWith(".en") && kind !== "distil" ? `, ${t("models.english")}` : "";
  return kind ? t(`models.${kind}`) + english : "";
}
