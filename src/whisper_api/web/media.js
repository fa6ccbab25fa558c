// Audio for the player. Media elements cannot send a key, so where keys are on the server lends
// a cookie that opens recordings and nothing else; scripts cannot read it.

import { request } from "./api.js";
import { at } from "./place.js";
import { key } from "./prefs.js";

let lentFor = "";

/** The address that an audio element may play. */
export async function openable(path) {
  const given = key.get();
  if (given && lentFor !== given) {
    await request("/v1/session", { method: "POST" });
    lentFor = given;
  }
  return at(path);
}
