// Asking for the API key.

import { $, h } from "./dom.js";
import { key } from "./prefs.js";
import { t } from "./text.js";
import { dialog } from "./ui.js";

/** Ask for a key; says whether one was given. `refused`: the error that the old one met. */
export async function askKey(refused) {
  const answer = await dialog(t("key.title"), (close) => {
    const lead = refused ? t("key.wrong") : t("key.lead");
    const about = { type: "password", autocomplete: "off", spellcheck: "false", required: true };
    const field = h("input", { id: "key", value: key.get(), ...about });
    const forget = h("button", { type: "button", class: "soft danger", onclick: () => close("forget") });
    forget.textContent = t("key.forget");
    return h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          key.set(field.value.trim(), $("#key-keep").checked);
          close("given");
        },
      },
      h("p", { role: refused ? "alert" : null, class: refused ? "danger" : "quiet" }, lead),
      h("label", { class: "field" }, h("span", {}, t("key.label")), field),
      h("label", { class: "tick" }, h("input", { type: "checkbox", id: "key-keep" }), t("key.keep")),
      h(
        "div",
        { class: "dialog-foot" },
        key.get() ? forget : null,
        h("button", { type: "submit", class: "primary" }, t("key.save")),
      ),
    );
  });
  if (answer === "forget") key.set("", false);
  return answer === "given";
}
