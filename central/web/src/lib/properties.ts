// What became of a property that an operator wrote: IoT Central's Pending, Accepted and Rejected, from the answer of
// `…/properties`, whose `$metadata` says what was desired and what the device acknowledged.

import type { Tone } from "./state";

export type Metadata = {
  lastUpdateTime?: string;
  desiredValue?: unknown;
  desiredVersion?: number;
  ackCode?: unknown;
  ackVersion?: unknown;
  ackDescription?: unknown;
};
export type PropertiesAnswer = Record<string, unknown> & { $metadata?: Record<string, Metadata> };

export type PropertyState = "reported" | "pending" | "accepted" | "rejected";
export type Property = {
  name: string;
  desired: unknown;
  hasDesired: boolean;
  reported: unknown;
  hasReported: boolean;
  state: PropertyState;
  /** What the device says of it. */
  ack: string | null;
  at: string | null;
  version: number | null;
};

export const PROPERTY_SHOWN: Record<
  Exclude<PropertyState, "reported">,
  { tone: Tone; icon: string; word: string }
> = {
  pending: { tone: "info", icon: "s-wait", word: "Pending" },
  accepted: { tone: "ok", icon: "s-ok", word: "Accepted" },
  rejected: { tone: "bad", icon: "s-bad", word: "Rejected" },
};

export function isSame(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const keys = Object.keys(one);
  if (keys.length !== Object.keys(other).length) return false;
  return keys.every((key) =>
    isSame((one as Record<string, unknown>)[key], (other as Record<string, unknown>)[key]),
  );
}

function stateOf(metadata: Metadata, reported: unknown, hasReported: boolean): PropertyState {
  if (metadata.desiredValue === undefined) return "reported";
  const code = Number(metadata.ackCode);
  const isOfThis =
    metadata.ackCode !== undefined && Number(metadata.ackVersion ?? 0) >= (metadata.desiredVersion ?? 0);
  if (isOfThis) {
    if (code >= 400) return "rejected";
    // 202: the device is at it.
    return code === 202 ? "pending" : "accepted";
  }
  // A device that acknowledges nothing and reports the desired value has taken it.
  return hasReported && metadata.ackCode === undefined && isSame(reported, metadata.desiredValue)
    ? "accepted"
    : "pending";
}

/** One row for each name, desired and reported side by side. `reported` is the twin's half: the answer gives a desired value where
 * nothing was reported. */
export function rowsOf(answer: PropertiesAnswer, reported: Record<string, unknown>): Property[] {
  const all = answer.$metadata ?? {};
  const names = new Set([...Object.keys(answer), ...Object.keys(all)]);
  names.delete("$metadata");
  return [...names]
    .filter((name) => !name.startsWith("$"))
    .sort((one, other) => one.localeCompare(other))
    .map((name) => {
      const metadata = all[name] ?? {};
      const hasDesired = metadata.desiredValue !== undefined;
      const hasReported = reported[name] !== undefined;
      return {
        name,
        desired: metadata.desiredValue,
        hasDesired,
        reported: hasReported ? answer[name] : undefined,
        hasReported,
        state: stateOf(metadata, answer[name], hasReported),
        ack:
          typeof metadata.ackDescription === "string" && metadata.ackDescription
            ? metadata.ackDescription
            : null,
        at: metadata.lastUpdateTime ?? null,
        version: metadata.desiredVersion ?? null,
      };
    });
}

/** What an operator wrote in a field: JSON if it is some, a text otherwise. */
export function parseInput(text: string): unknown {
  const trimmed = text.trim();
  try {
    return JSON.parse(trimmed);
  } catch {
    return trimmed;
  }
}

/** As it is written in the field: a text that would be read as JSON keeps its quotes. */
export function asInput(value: unknown): string {
  if (value === undefined) return "";
  if (typeof value !== "string") return JSON.stringify(value);
  return parseInput(value) === value ? value : JSON.stringify(value);
}
