// Numbers, sizes and values as text.

const COUNT = new Intl.NumberFormat("en-GB");

export function count(value: number): string {
  return COUNT.format(value);
}

/** `1 device`, `2 devices`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** `38 MB`, by 1000 as disks are sold. */
export function bytes(value: number): { number: string; unit: string } {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let size = Math.abs(value);
  let at = 0;
  while (size >= 1000 && at < units.length - 1) {
    size /= 1000;
    at += 1;
  }
  const digits = size < 10 && at > 0 ? 1 : 0;
  return { number: size.toFixed(digits), unit: units[at] ?? "B" };
}

/** A measured number with the digits that matter: 182.4, 0.0031, 4,318. */
export function measured(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-6)) return value.toExponential(3);
  if (Number.isInteger(value)) return COUNT.format(value);
  const digits = size >= 1000 ? 1 : size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return new Intl.NumberFormat("en-GB", { maximumFractionDigits: digits }).format(value);
}

/** A value in one line. */
export function shown(value: unknown): string {
  if (typeof value === "number") return measured(value);
  if (typeof value === "string") return value;
  return JSON.stringify(value) ?? "";
}

/** `system pressure` of `systemPressure`, `system_pressure` or `SystemPressure`: a label until a template names it. */
export function label(name: string): string {
  const words = name
    .replaceAll(/[_-]+/g, " ")
    .replaceAll(/([a-z\d])([A-Z])/g, "$1 $2")
    .replaceAll(/([A-Z]+)([A-Z][a-z])/g, "$1 $2")
    .trim();
  if (!words) return name;
  const text = words
    .split(/\s+/)
    .map((word, at) => (at > 0 && /^[A-Z][a-z]+$/.test(word) ? word.toLowerCase() : word))
    .join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** `press 3` of the template `dtmi:plant:press;3`: its name and version, the whole id on hover. */
export function templateName(id: string): string {
  const found = /^dtmi:(?:.*:)?([^:;]+);(\d+(?:\.\d+)?)$/.exec(id);
  return found ? `${label(found[1] ?? "")} ${found[2]}` : id;
}
