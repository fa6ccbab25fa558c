// The start: language, colours, which view is shown, and how the server is.

import { capabilities, onKeyNeeded, ready } from "./api.js";
import { $, $$, show, write } from "./dom.js";
import { icon, paintIcons } from "./icons.js";
import { at } from "./place.js";
import { key, recall, remember } from "./prefs.js";
import { TONGUES, currentTongue, loadTongue, onTongue, switchTongue, t } from "./text.js";

const VIEWS = {
  home: () => import("./home.js"),
  history: () => import("./history.js"),
  models: () => import("./models.js"),
  studio: () => import("./studio.js"),
};
const THEMES = { auto: "auto", light: "sun", dark: "moon" };
const server = { ready: undefined, capabilities: null };

// --- views: #/, #/history, #/models, #/task/ID, #/t/ID ----------------------------------------

let leave = null;
let turn = 0;
let studioStyle = null;

/** The style of transcripts and dialogs: not needed for the first paint. */
function loadStyle() {
  studioStyle ??= new Promise((done) => {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: at("/web/css/studio.css"), onload: done, onerror: done });
    document.head.append(link);
  });
  return studioStyle;
}

async function route() {
  const [name = "", id = ""] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
  const view = id && (name === "t" || name === "task") ? "studio" : name in VIEWS ? name : "home";
  const mine = ++turn;
  await leave?.();
  leave = null;
  const [module] = await Promise.all([VIEWS[view](), view === "home" ? null : loadStyle()]);
  if (mine !== turn) return;
  for (const section of $$("main > .view")) show(section, section.id === view);
  document.body.classList.toggle("in-studio", view === "studio");
  for (const link of $$(".tabs a")) {
    const here = link.getAttribute("href") === `#/${view === "home" ? "" : view}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave = (await module.enter($(`#${view}`), { kind: name, id, server })) ?? null;
  if (view !== "studio") document.title = t("brand").split(",")[0];
}

// --- how the server is --------------------------------------------------------------------------

async function watchServer() {
  const before = server.ready?.status;
  server.ready = await ready();
  showServer();
  const status = server.ready?.status;
  if (status !== before && status) await readCapabilities();
  setTimeout(watchServer, status === "ready" ? 20_000 : 2_000);
}

async function readCapabilities() {
  try {
    server.capabilities = await capabilities();
  } catch {
    return;
  }
  show($("#key-button"), server.capabilities.api_key_required);
  document.dispatchEvent(new CustomEvent("server", { detail: server }));
}

function showServer() {
  const state = server.ready;
  const status = state === null ? "gone" : (state?.status ?? "loading");
  const { model, engine, device } = state ?? {};
  $("#status").dataset.state = status;
  write($("#status .words"), status === "ready" ? model : t(`status.${status}`));
  $("#status").title = model ? t("status.about", { model, engine, device }) : "";
  showBanner(status, state);
}

function showBanner(status, state) {
  const banner = $("#banner");
  const bundled = status === "ready" && state.model === "bundled";
  const words = {
    ready: bundled ? t("banner.bundled") : (state?.note ?? ""),
    loading: state ? t("banner.loading") : "",
    failed: t("banner.failed", { reason: state?.reasons?.[0] ?? "" }),
    gone: t("banner.gone"),
  }[status];
  if (banner.dataset.words !== words) {
    banner.dataset.words = words;
    banner.replaceChildren(words);
    if (bundled) {
      const link = document.createElement("a");
      link.href = "#/models";
      link.textContent = t("banner.choose");
      banner.append(link);
    }
  }
  banner.dataset.kind = status === "failed" || status === "gone" ? "bad" : "warn";
  show(banner, Boolean(words));
}

// --- the top ------------------------------------------------------------------------------------

function showTheme() {
  const theme = recall("theme", "auto");
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = $("#theme");
  button.replaceChildren(icon(THEMES[theme] ?? "auto"));
  button.title = button.ariaLabel = t(`theme.${theme}`);
  document.dispatchEvent(new Event("theme"));
}

function wireTop() {
  $("#theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    remember("theme", names[(names.indexOf(recall("theme", "auto")) + 1) % names.length]);
    showTheme();
  });
  $("#tongue").append(...Object.entries(TONGUES).map(([code, name]) => new Option(name, code)));
  $("#tongue").value = currentTongue();
  $("#tongue").addEventListener("change", async () => {
    await switchTongue($("#tongue").value);
    await route();
  });
  $("#help").addEventListener("click", async () => (await import("./keys.js")).showHelp());
  $("#key-button").addEventListener("click", async () => {
    if (await (await import("./key-dialog.js")).askKey(null)) await route();
  });
  onTongue(() => (showTheme(), showServer()));
  window.addEventListener("hashchange", async () => {
    await route();
    $("#main").focus({ preventScroll: true });
  });
}

/** Several requests may miss the key at once: the person is asked once. */
let asking = null;
onKeyNeeded((refused) => {
  const given = key.get();
  asking ??= import("./key-dialog.js")
    .then(({ askKey }) => askKey(given ? refused : null))
    .finally(() => (asking = null));
  return asking;
});

async function start() {
  paintIcons(document);
  wireTop();
  await loadTongue();
  showTheme();
  document.body.classList.remove("waiting");
  await Promise.all([route(), watchServer()]);
  const [{ listenEverywhere }] = await Promise.all([import("./intake.js"), loadStyle()]);
  listenEverywhere(server);
}

start();
