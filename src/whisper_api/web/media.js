// Audio for the player. Media elements cannot send a key, so where keys are on the server lends
// a cookie that opens recordings and nothing else; scripts cannot read it.

import { request } from "./api.js";
import { at } from "./place.js";
import { key } from "./prefs.js";

const AGAIN_MS = 6 * 3600e3; // half of the cookie's life

let lent = { to: "", since: 0 };

/** The address that an audio element may play. */
export async function openable(path) {
  const given = key.get();
  if (given && (lent.to !== given || Date.now() - lent.since > AGAIN_MS)) {
    await request("/v1/session", { method: "POST" });
    lent = { to: given, since: Date.now() };
  }
  return at(path);
}
