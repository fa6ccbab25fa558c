// The request of a transcription in the words of curl, Python and JavaScript.

import { address } from "./place.js";
import { key } from "./prefs.js";

/** `options`: the API's fields, as `options.js` gives them. */
export function requestAs(language, name, options) {
  return { curl, python, javascript }[language](name, options);
}

function parts({ task, ...options }) {
  const path = task === "translate" ? "translations" : "transcriptions";
  return { path, fields: Object.entries(options).filter(([, value]) => value !== null) };
}

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function curl(name, options) {
  const { path, fields } = parts(options);
  const lines = [`curl ${address}/v1/audio/${path}`];
  if (key.get()) lines.push(`-H "Authorization: Bearer $WHISPER_API_KEY"`);
  lines.push(`-F ${quoted(`file=@${name}`)}`);
  for (const [field, value] of fields) {
    const values = Array.isArray(value) ? value.map((item) => [`${field}[]`, item]) : [[field, value]];
    for (const [title, item] of values) lines.push(`-F ${quoted(`${title}=${item}`)}`);
  }
  return lines.join(" \\\n  ");
}

/** What OpenAI's clients know by name; the rest goes beside it. */
const OPENAI = new Set(["model", "language", "prompt", "response_format", "temperature", "timestamp_granularities", "chunking_strategy"]);

function python(name, options) {
  const { path, fields } = parts(options);
  const known = { model: "whisper-1", ...Object.fromEntries(fields.filter(([field]) => OPENAI.has(field))) };
  if (known.language === "auto") delete known.language;
  const extra = fields.filter(([field]) => !OPENAI.has(field));
  const lines = Object.entries(known).map(([field, value]) => `        ${field}=${literal(value)},`);
  if (extra.length) lines.push(`        extra_body=${literal(Object.fromEntries(extra))},`);
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${address}/v1", api_key="${key.get() ? "YOUR_KEY" : "none"}")`,
    `with open(${literal(name)}, "rb") as audio:`,
    `    answer = client.audio.${path}.create(`,
    "        file=audio,",
    ...lines,
    "    )",
    "print(answer.text)",
  ].join("\n");
}

/** A value as Python writes it. */
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`);
  return `{${members.join(", ")}}`;
}

function javascript(name, options) {
  const { path, fields } = parts(options);
  const lines = fields.flatMap(([field, value]) =>
    Array.isArray(value)
      ? value.map((item) => `form.append("${field}[]", ${JSON.stringify(item)});`)
      : [`form.append("${field}", ${JSON.stringify(String(value))});`],
  );
  const head = key.get() ? `\n  headers: { Authorization: "Bearer YOUR_KEY" },` : "";
  return [
    "// `file` is a File, from an <input type=file> for example",
    "const form = new FormData();",
    `form.append("file", file, ${JSON.stringify(name)});`,
    ...lines,
    `const answer = await fetch("${address}/v1/audio/${path}", {`,
    `  method: "POST",${head}`,
    "  body: form,",
    "});",
    "console.log(await answer.json());",
  ].join("\n");
}
