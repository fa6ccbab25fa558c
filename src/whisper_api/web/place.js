// Where the server is: at the root of its host, or below a path of a proxy's. This file lies in
// the server's folder `web`, so its own address tells.

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** The path to ask for instead of `path`, which starts with a slash. */
export const at = (path) => ROOT + path;

/** The server's address without the last slash, as programs need it. */
export const address = location.origin + ROOT;
