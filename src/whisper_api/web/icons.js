// Line icons on a grid of 24, drawn with the text's colour.

const PATHS = {
  upload: "M12 16V4m0 0L7 9m5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3",
  mic: "M12 15a3.5 3.5 0 0 0 3.5-3.5v-5a3.5 3.5 0 0 0-7 0v5A3.5 3.5 0 0 0 12 15Zm6.5-3.5a6.5 6.5 0 0 1-13 0M12 18v3",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.3l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.7l1-1",
  spark: "M12 3v4m0 10v4M3 12h4m10 0h4M6 6l2.5 2.5m7 7L18 18M18 6l-2.5 2.5m-7 7L6 18",
  play: "M8 5.2v13.6L19 12Z",
  pause: "M8 5v14M16 5v14",
  back: "M11 8 7 12l4 4M7 12h10",
  rewind: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  forward: "M20 12a8 8 0 1 1-2.5-5.8M20 4v4h-4",
  close: "M6 6l12 12M18 6 6 18",
  retry: "M20 11a8 8 0 1 0-1 5m1-11v6h-6",
  check: "M5 12.5 10 17 19 7",
  alert: "M12 8v5m0 3v.1M12 3 2.5 20h19Z",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14Zm5-2 4.5 4.5",
  edit: "M4 20h4L19 9l-4-4L4 16Zm9-13 4 4",
  split: "M4 6h16M4 18h16M12 9v6m-3-3h6",
  merge: "M4 6h16M4 18h16M9 12h6",
  undo: "M9 7 4 12l5 5M4 12h10a6 6 0 0 1 6 6",
  redo: "m15 7 5 5-5 5m5-5H10a6 6 0 0 0-6 6",
  save: "M12 4v12m0 0 5-5m-5 5-5-5M4 19h16",
  copy: "M9 9h11v11H9Zm-4 6H4V4h11v1",
  trash: "M4 7h16M9 7V4h6v3m3 0-1 13H7L6 7m4 4v5m4-5v5",
  file: "M6 3h8l4 4v14H6Zm8 0v4h4",
  down: "m6 9 6 6 6-6",
  up: "m6 15 6-6 6 6",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm0-14v2m0 16v2M4.9 4.9l1.4 1.4m11.4 11.4 1.4 1.4M2 12h2m16 0h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z",
  auto: "M12 3a9 9 0 1 0 0 18Zm0 0a9 9 0 0 1 0 18",
  key: "M15 10a4 4 0 1 0-4 4l1-.1L13.5 12.5H16V10m-1 0 5-5m-2 2 2 2",
  help: "M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .9-1 1.7m0 3v.1M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  history: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4m4 0v4.5l3 2",
  models: "M12 3 4 7.5v9L12 21l8-4.5v-9Zm0 9 8-4.5M12 12v9m0-9L4 7.5",
  code: "m8 7-5 5 5 5m8-10 5 5-5 5",
  text: "M5 6h14M5 11h14M5 16h9",
  stop: "M7 7h10v10H7Z",
  options: "M4 7h9m4 0h3M4 17h3m4 0h9M15 9a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM9 19a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z",
  flag: "M6 21V4h11l-2 4 2 4H6",
};

export function icon(name, size = 20) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const values = { viewBox: "0 0 24 24", width: size, height: size, class: `icon icon-${name}` };
  for (const [key, value] of Object.entries(values)) svg.setAttribute(key, value);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Fill every element that names its icon in `data-icon`. */
export function paintIcons(root) {
  for (const node of root.querySelectorAll("[data-icon]:not(:has(> svg))")) {
    node.prepend(icon(node.dataset.icon));
  }
}
