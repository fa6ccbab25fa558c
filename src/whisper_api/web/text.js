// The page's language: English is there at once, others are fetched when asked for.

import en from "./i18n/en.js";
import { recall, remember } from "./prefs.js";

export const TONGUES = { en: "English", ru: "Русский" };

const preferred = navigator.languages?.some((tag) => tag.startsWith("ru")) ? "ru" : "en";
let tongue = recall("tongue", preferred) in TONGUES ? recall("tongue", preferred) : "en";
let words = en;
const listeners = new Set();

export const currentTongue = () => tongue;

/** The words of `key`, with {names} filled in; `count` chooses among forms such as one|few|many. */
export function t(key, values = {}) {
  let found = words[key] ?? en[key] ?? key;
  if (typeof found === "object") {
    const form = new Intl.PluralRules(tongue).select(values.count);
    found = found[form] ?? found.other;
  }
  return found.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export async function loadTongue(wanted = tongue) {
  words = wanted === "en" ? en : (await import(`./i18n/${wanted}.js`)).default;
  tongue = wanted;
  document.documentElement.lang = wanted;
  paintWords(document);
  for (const listener of listeners) listener();
}

export function switchTongue(wanted) {
  remember("tongue", wanted);
  return loadTongue(wanted);
}

/** Call `listener` whenever the language changes. */
export function onTongue(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** data-t: the text; data-t-title, data-t-label, data-t-hint: title, aria-label, placeholder. */
export function paintWords(root) {
  const attributes = { tTitle: "title", tLabel: "aria-label", tHint: "placeholder" };
  for (const node of root.querySelectorAll("[data-t]")) {
    const label = node.querySelector(":scope > .label") ?? node;
    label.textContent = t(node.dataset.t);
  }
  for (const [name, attribute] of Object.entries(attributes)) {
    const selector = `[data-${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}]`;
    for (const node of root.querySelectorAll(selector)) {
      node.setAttribute(attribute, t(node.dataset[name]));
    }
  }
}

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let place = 0;
  for (; count >= 1000 && place < units.length - 1; place++) count /= 1000;
  const digits = count < 10 && place > 0 ? 1 : 0;
  const number = count.toLocaleString(tongue, { maximumFractionDigits: digits });
  return `${number} ${t(`unit.${units[place]}`)}`;
}

/** 0:03, 12:05, 1:02:03; with `decimals`, 0:03.25. */
export function clock(seconds, decimals = 0) {
  const scale = 10 ** decimals;
  const whole = Math.max(0, decimals ? Math.round(seconds * scale) : Math.floor(seconds)) / scale;
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = (whole % 60).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** The seconds that a clock text means; NaN where it means none. */
export function parseClock(text) {
  const parts = text.trim().replace(",", ".").split(":");
  if (parts.length > 3 || parts.some((part) => !/^\d+(\.\d+)?$/.test(part))) return NaN;
  return parts.reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** 45 s, 3 min, 2 h 5 min. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return t("span.s", { s: whole });
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return t("span.min", { min: minutes });
  return t("span.h", { h: Math.floor(minutes / 60), min: minutes % 60 });
}

export function when(unix) {
  const date = new Date(unix * 1000);
  const sameDay = date.toDateString() === new Date().toDateString();
  const style = sameDay ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(tongue, style).format(date);
}

/** A language's own name in the page's language; `fallback` where the browser has none. */
export function languageName(code, fallback = code) {
  try {
    const name = new Intl.DisplayNames([tongue], { type: "language" }).of(code);
    if (name && name !== code) return name[0].toLocaleUpperCase(tongue) + name.slice(1);
  } catch {
    // a code that Intl does not take
  }
  return fallback;
}
