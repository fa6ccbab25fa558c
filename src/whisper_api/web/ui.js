// Dialogs and passing notes.

import { $, h } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./text.js";

/** A note at the foot of the page; `action` = {label, run} puts a button into it. */
export function toast(message, { action = null, seconds = 5 } = {}) {
  const node = h("div", { class: "toast" }, h("span", {}, message));
  if (action) {
    const run = () => (node.remove(), action.run());
    node.append(h("button", { type: "button", onclick: run }, action.label));
  }
  const holder = $("#toasts");
  holder.append(node);
  while (holder.children.length > 3) holder.firstChild.remove();
  setTimeout(() => node.remove(), seconds * 1000);
}

/** A modal dialog; resolves with its return value, "" where it was only closed. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    const close = (value = "") => box.close(value);
    const head = h(
      "div",
      { class: "dialog-head" },
      h("h2", { id: "dialog-title" }, title),
      h(
        "button",
        { type: "button", class: "quiet-button", "aria-label": t("close"), onclick: () => close() },
        icon("close"),
      ),
    );
    const box = h("dialog", { "aria-labelledby": "dialog-title" }, head);
    box.append(...[build(close)].flat());
    box.addEventListener("click", (event) => event.target === box && inBackdrop(box, event) && close());
    box.addEventListener("close", () => (box.remove(), resolve(box.returnValue)));
    document.body.append(box);
    box.showModal();
  });
}

function inBackdrop(box, { clientX, clientY }) {
  const { left, right, top, bottom } = box.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/** Whether the person agrees to `label`. */
export async function sure(question, label) {
  const answer = await dialog(question, (close) =>
    h(
      "div",
      { class: "dialog-foot" },
      h("button", { type: "button", class: "soft", onclick: () => close() }, t("cancel")),
      h("button", { type: "button", class: "soft danger", onclick: () => close("yes") }, label),
    ),
  );
  return answer === "yes";
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(t("copied"), { seconds: 2 });
  } catch {
    toast(t("copy.failed"));
  }
}

export function iconButton(name, label, onclick, more = {}) {
  const about = { type: "button", class: "quiet-button", title: label, "aria-label": label };
  return h("button", { ...about, onclick, ...more }, icon(name));
}

export function labelled(name, label, onclick, more = {}) {
  const about = { type: "button", class: "soft", onclick, ...more };
  return h("button", about, icon(name, 18), h("span", { class: "label" }, label));
}

/** The empty state of a view. */
export function empty(mark, title, hint, action = null) {
  return h(
    "div",
    { class: "empty" },
    h("span", { class: "mark" }, icon(mark, 26)),
    h("h2", {}, title),
    h("p", {}, hint),
    action,
  );
}
