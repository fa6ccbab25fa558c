// What this browser remembers. Storage may be forbidden or full: then the page works without it.

const PREFIX = "whisper-api.";

export function recall(name, fallback) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // nothing is remembered
  }
}

/** The API key: kept for this tab, or on this device where the person asked for that. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem(PREFIX + "key") ?? recall("key", "");
    } catch {
      return "";
    }
  },
  set(value, keep) {
    try {
      sessionStorage.setItem(PREFIX + "key", value);
    } catch {
      // it lives in this page only
    }
    remember("key", keep && value ? value : null);
  },
};
