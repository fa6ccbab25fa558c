// Keys for those who work without the mouse: one table, which the help shows as well.

import { h, isTyping } from "./dom.js";
import { t } from "./text.js";
import { dialog } from "./ui.js";

/** [what it is called, keys as shown] */
const SHOWN = [
  ["play", ["Space"]],
  ["seek", ["←", "→"]],
  ["rows", ["↑", "↓"]],
  ["speed", ["[", "]"]],
  ["edit", ["Enter", "E"]],
  ["doubt", ["D"]],
  ["search", ["/", "Ctrl+F"]],
  ["undo", ["Ctrl+Z", "Ctrl+Shift+Z"]],
  ["export", ["X"]],
  ["split", ["Ctrl+Enter"]],
  ["playEdit", ["Ctrl+Space"]],
  ["help", ["?"]],
];

/** The name of a key press, such as "Ctrl+Shift+z"; letters by their place, so Russian works. */
export function nameOf(event) {
  const letter = /^Key([A-Z])$/.exec(event.code);
  const base = letter ? letter[1].toLowerCase() : event.code === "Space" ? "Space" : event.key;
  const ctrl = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const shift = event.shiftKey && (letter || base.length > 1) ? "Shift+" : "";
  return `${ctrl}${event.altKey ? "Alt+" : ""}${shift}${base}`;
}

/** `actions`: key name -> function. Keys typed into fields stay there, unless they have Ctrl. */
export function listen(actions) {
  const onKey = (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const name = nameOf(event);
    const action = actions[name];
    if (!action) return;
    if (isTyping(event.target) && name !== "Ctrl+f" && name !== "Ctrl+Space") return;
    const pressing = event.target.closest?.("button, a, summary, [role=tab]");
    if (pressing && (name === "Space" || name === "Enter")) return;
    if (event.target.closest?.("[role=slider], [role=tab]") && name.startsWith("Arrow")) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}

export function showHelp() {
  return dialog(t("help.title"), () =>
    h(
      "dl",
      { class: "keys" },
      SHOWN.flatMap(([name, keys]) => [
        h("dt", {}, keys.flatMap((key, place) => [place ? ` ${t("help.or")} ` : "", h("kbd", {}, key)])),
        h("dd", {}, t(`help.${name}`)),
      ]),
    ),
  );
}

document.addEventListener("keydown", (event) => {
  const open = document.querySelector("dialog[open]");
  if (event.key === "?" && !isTyping(event.target) && !open) showHelp();
});
