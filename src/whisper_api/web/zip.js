// A zip file of texts, stored as they are: no compression, so that no library is needed.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** `files`: [{name, content}]; equal names get a number. */
export function zip(files, now = new Date()) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, content } of distinct(files)) {
    const title = new TextEncoder().encode(name);
    const data = new TextEncoder().encode(content);
    // Version, UTF-8 names, stored; time, date; sum; sizes; length of the name, of extras.
    const about = "22222 444 22";
    const fields = [20, 0x0800, 0, ...dosTime(now), crc32(data), data.length, data.length, title.length, 0];
    const local = pack(`4 ${about}`, [0x04034b50, ...fields]);
    parts.push(local, title, data);
    const tail = [0, 0, 0, 0, offset];
    directory.push(pack(`4 2 ${about} 222 44`, [0x02014b50, 20, ...fields, ...tail]), title);
    offset += local.length + title.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = directory.length / 2;
  const end = pack("4 2222 44 2", [0x06054b50, 0, 0, count, count, size, offset, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Little-endian numbers; `widths` has a digit, 2 or 4 bytes, for each. */
function pack(widths, values) {
  const sizes = [...widths.replaceAll(" ", "")].map(Number);
  const view = new DataView(new ArrayBuffer(sizes.reduce((sum, size) => sum + size, 0)));
  let at = 0;
  sizes.forEach((size, place) => {
    if (size === 4) view.setUint32(at, values[place], true);
    else view.setUint16(at, values[place], true);
    at += size;
  });
  return new Uint8Array(view.buffer);
}

function dosTime(date) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  return [time, ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()];
}

function distinct(files) {
  const seen = new Map();
  return files.map(({ name, content }) => {
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return { name: count > 1 ? name.replace(/(\.[^.]*)?$/, ` (${count})$1`) : name, content };
  });
}
