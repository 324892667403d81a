// Comma-separated values that the browser writes, by the rule of central's own files (central/core/src/devices/csv.rs).

/** A text that a spreadsheet could take for a formula. Apostrophes before it do not count, so that central takes off the guard only. */
const FORMULA =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is searched for
  /^'*(?:[\u0000-\u001f\u007f-\u009f]|[\s\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2060-\u2064]*[=+\-@\uff1d\uff0b\uff0d\uff20])/;

/** One field. A text that begins like a formula gets an apostrophe, which central takes off again; a number stays one. */
export function csvField(value: string | number): string {
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",;\t\r\n]|^[\s\u0085]|[\s\u0085]$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
