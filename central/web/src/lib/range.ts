// The range of time that a page's charts show: relative words in the address, `now-6h`.

export type Range = { text: string; word: string; ms: number };

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

export const RANGES: Range[] = [
  { text: "now-5m", word: "Last 5 minutes", ms: 5 * MINUTE },
  { text: "now-15m", word: "Last 15 minutes", ms: 15 * MINUTE },
  { text: "now-1h", word: "Last hour", ms: HOUR },
  { text: "now-6h", word: "Last 6 hours", ms: 6 * HOUR },
  { text: "now-24h", word: "Last 24 hours", ms: 24 * HOUR },
  { text: "now-7d", word: "Last 7 days", ms: 7 * 24 * HOUR },
];

const UNITS: Record<string, number> = { m: MINUTE, h: HOUR, d: 24 * HOUR };

/** Reads `now-90m`; null for anything else. */
export function parseRange(text: string): Range | null {
  const known = RANGES.find((range) => range.text === text);
  if (known) return known;
  const found = /^now-(\d{1,4})([mhd])$/.exec(text.trim());
  const unit = UNITS[found?.[2] ?? ""];
  const number = Number(found?.[1] ?? 0);
  if (!found || !unit || number < 1) return null;
  return {
    text: text.trim(),
    word: `Last ${found[1]} ${found[2] === "m" ? "min" : found[2]}`,
    ms: number * unit,
  };
}

export const RANGE_DEFAULT = RANGES[2] as Range;
